-- When the event there was published: an older copy of the log has another one under the same number.
ALTER TABLE place ADD COLUMN published_at INTEGER;
