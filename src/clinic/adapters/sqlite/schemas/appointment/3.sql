-- The row of each appointment that was added once, as it was added.
CREATE TABLE idempotency_keys (key BLOB PRIMARY KEY, appointment BLOB NOT NULL) WITHOUT ROWID;
