"""What the rounds of the standing audit have found, and still find."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from clinic.domain.reconciliation.findings import Finding
from clinic.domain.reconciliation.repair import Repair


class Found(Struct, frozen=True):
    """A finding, since when it is known, and what a repair made of it."""

    finding: Finding
    since: datetime
    repair: Repair | None = None


class Findings:
    """What is not as it should be, by appointment, as the last round left it."""

    def __init__(self) -> None:
        self._found: dict[UUID, Found] = {}

    def replace(self, found: Iterable[tuple[Finding, Repair | None]], now: datetime) -> Sequence[Finding]:
        """Keep these and no others; return those that are new. An earlier repair stays with its finding."""
        before, self._found = self._found, {}
        for finding, repair in found:
            known = before.get(finding.appointment_id)
            since, repaired = (known.since, known.repair) if known else (now, None)
            self._found[finding.appointment_id] = Found(finding, since, repair or repaired)
        return [found.finding for id_, found in self._found.items() if id_ not in before]

    def count(self, kind: str) -> int:
        """How many there are of this kind."""
        return sum(found.finding.kind == kind for found in self._found.values())

    def page(self, limit: int, after: UUID | None) -> Sequence[Found]:
        """Up to `limit`, the newest appointment's id first, from behind the id `after`."""
        ids = sorted((id_ for id_ in self._found if after is None or id_ < after), reverse=True)
        return [self._found[id_] for id_ in ids[:limit]]
