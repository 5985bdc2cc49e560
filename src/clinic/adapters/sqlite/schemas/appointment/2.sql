-- What is open is listed without reading what is finished.
CREATE INDEX appointments_open ON appointments (id) WHERE "end" IS NULL;
