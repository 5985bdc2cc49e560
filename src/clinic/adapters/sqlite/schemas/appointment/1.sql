CREATE TABLE appointments (
    id BLOB PRIMARY KEY, physician_id BLOB NOT NULL, patient_id BLOB NOT NULL, cents INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER, version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX appointments_of_a_physician ON appointments (physician_id, id);
CREATE INDEX appointments_of_a_patient ON appointments (patient_id, id);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,
    saved_at INTEGER NOT NULL, message BLOB NOT NULL
);
CREATE TABLE published (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, saved_at INTEGER NOT NULL, published_at INTEGER NOT NULL,
    position TEXT NOT NULL
) WITHOUT ROWID;
