"""Stores and a transport in SQLite files: the embedded default, on one machine."""
