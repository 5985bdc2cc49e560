CREATE TABLE charges (
    appointment_id BLOB PRIMARY KEY, physician_id BLOB NOT NULL, patient_id BLOB NOT NULL,
    cents INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, pricing TEXT NOT NULL,
    hours TEXT NOT NULL, total_cents INTEGER NOT NULL, charged_at INTEGER NOT NULL, position TEXT NOT NULL,
    published_at INTEGER NOT NULL, received_at INTEGER NOT NULL, attempts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX charges_by_time ON charges (charged_at, appointment_id);
CREATE INDEX charges_of_a_physician ON charges (physician_id, charged_at, appointment_id);
CREATE INDEX charges_of_a_patient ON charges (patient_id, charged_at, appointment_id);
CREATE TABLE dead_letters (
    position TEXT PRIMARY KEY, message_id TEXT NOT NULL, key BLOB, headers BLOB NOT NULL, value BLOB,
    length INTEGER NOT NULL, sha256 TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, about TEXT NOT NULL, type TEXT NOT NULL,
    published_at INTEGER NOT NULL, "group" TEXT NOT NULL, state TEXT NOT NULL,
    handled BLOB NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
CREATE INDEX dead_letters_in_a_state ON dead_letters (state, position);
CREATE INDEX dead_letters_in_a_state_of_a_group ON dead_letters (state, "group", position);
CREATE INDEX dead_letters_about ON dead_letters (about, position);
-- Holds all that the list of groups shows: it reads no letter, however large.
CREATE INDEX dead_letters_of_a_group
    ON dead_letters ("group", position, state, first_seen, last_seen, reason);
