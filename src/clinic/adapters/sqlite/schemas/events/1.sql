CREATE TABLE log (id TEXT NOT NULL);
INSERT INTO log VALUES (lower(hex(randomblob(8))));
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, headers BLOB NOT NULL, value BLOB,
    published_at INTEGER NOT NULL
);
