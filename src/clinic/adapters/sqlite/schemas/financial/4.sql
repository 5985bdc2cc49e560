-- A list reads no value, however large: it is the last column, and a table with row ids finds a row without it.
CREATE TABLE dead_letters_anew (
    position TEXT PRIMARY KEY NOT NULL, message_id TEXT NOT NULL, key BLOB, length INTEGER NOT NULL,
    sha256 TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL, first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL, about TEXT NOT NULL, type TEXT NOT NULL, published_at INTEGER NOT NULL,
    "group" TEXT NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL DEFAULT '', cut INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0, headers BLOB NOT NULL, value BLOB
);
INSERT INTO dead_letters_anew
    SELECT position, message_id, key, length, sha256, reason, attempts, first_seen, last_seen, about, type,
        published_at, "group", state, code, cut, entries, headers, value
    FROM dead_letters;
DROP TABLE dead_letters;
ALTER TABLE dead_letters_anew RENAME TO dead_letters;
CREATE INDEX dead_letters_in_a_state ON dead_letters (state, position);
CREATE INDEX dead_letters_in_a_state_of_a_group ON dead_letters (state, "group", position);
CREATE INDEX dead_letters_about ON dead_letters (about, position);
-- Holds all that the list of groups shows: it reads no letter, however large.
CREATE INDEX dead_letters_of_a_group
    ON dead_letters ("group", position, state, first_seen, last_seen, reason);
