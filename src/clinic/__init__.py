"""A clinic's appointments and their charges: two services, one fact between them, nothing lost or doubled."""
