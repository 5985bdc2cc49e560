-- Each entry of a history becomes a row.
CREATE TABLE dead_letter_history (
    position TEXT NOT NULL, number INTEGER NOT NULL, event TEXT NOT NULL, by TEXT NOT NULL,
    at INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (position, number)
) WITHOUT ROWID;
-- For a list of who did what, of all letters.
CREATE INDEX dead_letter_history_by_time ON dead_letter_history (at, position, number);
INSERT INTO dead_letter_history
    SELECT position, entry.key,
        coalesce(json_extract(entry.value, '$.event'), json_extract(entry.value, '$.what')),
        json_extract(entry.value, '$.by'),
        CAST(round((julianday(json_extract(entry.value, '$.at')) - 2440587.5) * 86400000) AS INTEGER),
        json_extract(entry.value, '$.note')
    FROM dead_letters, json_each(CAST(handled AS TEXT)) AS entry;
ALTER TABLE dead_letters ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letters ADD COLUMN cut INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN entries INTEGER NOT NULL DEFAULT 0;
UPDATE dead_letters SET entries = json_array_length(CAST(handled AS TEXT));
ALTER TABLE dead_letters DROP COLUMN handled;
