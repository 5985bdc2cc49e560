"""The outside: the only place that knows which technology is in use."""
