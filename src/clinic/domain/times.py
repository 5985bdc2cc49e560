"""Moments as others write them."""

import re
from typing import Final

MICROSECONDS: Final = len("2020-12-01T13:00:00.000000Z")

_finer = re.compile(r"(?<=\.[0-9]{6})[0-9]+")


def cut(text: str) -> str:
    """An RFC 3339 time without what is finer than microseconds, which msgspec would round up."""
    return _finer.sub("", text) if len(text) > MICROSECONDS else text
