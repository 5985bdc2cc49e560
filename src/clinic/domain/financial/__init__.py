"""Charges: one for each finished appointment, for ever."""
