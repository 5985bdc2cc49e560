"""Notes which events a relay is handed, and which it publishes though it may not hold them any more."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from clinic.domain.errors import Refused
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublishResult

SLACK: Final = 0.1
"""Seconds that may pass between a relay's look at its lease and its call."""


class Witness:
    """A service's notes, by the clock that all processes of a machine share."""

    def __init__(self, notes: Path) -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._until: dict[str, float] = {}

    def is_handed(self, claimed: Iterable[ClaimedMessage]) -> None:
        held = {each.message.id: each.expires_at for each in claimed}
        self._until.update(held)
        self._note(held=held)

    def is_published(self, batch: Iterable[Message]) -> None:
        if late := [each.id for each in batch if self._until.get(each.id, monotonic()) < monotonic() - SLACK]:
            self._note(late=late)

    def is_refused(self, batch: Iterable[Message]) -> None:
        """Its parts are published one after the other, however long that takes."""
        for each in batch:
            self._until.pop(each.id, None)

    def _note(self, **details: Any) -> None:
        os.write(self._notes, msgspec.json.encode({"at": monotonic(), "pid": os.getpid(), **details}) + b"\n")


class WitnessOfClaims:
    """Sees what an outbox hands over."""

    def __init__(self, outbox: Any, witness: Witness) -> None:
        self._outbox = outbox
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
        claimed: Sequence[ClaimedMessage] = await self._outbox.claim(limit)
        self._witness.is_handed(claimed)
        return claimed


class WitnessOfPublications:
    """Sees what a publisher is given."""

    def __init__(self, publisher: Any, witness: Witness) -> None:
        self._publisher = publisher
        self._witness = witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        self._witness.is_published(batch)
        try:
            return await self._publisher.publish(batch)  # type: ignore[no-any-return]
        except Refused:
            self._witness.is_refused(batch)
            raise
