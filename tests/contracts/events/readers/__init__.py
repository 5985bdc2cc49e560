"""Consumers of older versions, frozen: see `gate.py`."""
