"""A clinic's appointments and their charges: two services, one event, nothing lost and nothing doubled."""
