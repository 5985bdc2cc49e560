"""Appointments: they start, and they finish once."""
