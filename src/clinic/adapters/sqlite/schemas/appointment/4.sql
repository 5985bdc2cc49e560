-- What waits to be published is listed in the order of its saves, however much waits.
CREATE INDEX outbox_by_save ON outbox (saved_at, subject);
