"""A page of a list: the items that it shows, and the cursor of the next one."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from clinic.entrypoints.web.parameters import cursor

T = TypeVar("T")


def page(found: Sequence[T], limit: int, place: Callable[[T], object]) -> tuple[Sequence[T], str | None]:
    """The first `limit` of what was found, and the cursor behind them; None where nothing follows.

    Ask the store for one more than the limit: it shows whether something follows.
    """
    items = found[:limit]
    return items, cursor(place(items[-1])) if len(found) > limit else None
