"""Whether the promise was kept, and whether the run tried hard enough to say so."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from support.ledger import History, Kept, compare, sums

from campaign.clients import BEHAVIOURS
from campaign.evidence import Evidence
from campaign.messages import ForeignMessage, Letter
from campaign.nemesis import Happened
from campaign.plan import LEAST_SHARE, Kind, Options


@dataclass
class Found:
    """All that there is to compare, once the services have been quiet and have ended."""

    history: History
    kept: Kept
    shown: Mapping[str, Decimal | None]
    evidence: Evidence
    left: Mapping[str, Any]
    foreign: Collection[ForeignMessage]
    dead_letters: Sequence[Letter]
    ends: Mapping[str, int | str]
    contradicted: Collection[str] = ()
    """The appointments of which the campaign itself published another price and end."""
    failure: str | None = None
    """What kept the campaign from its end: then the ledger is not to be had."""
    audit: Sequence[str] = ()
    """What `clinic audit` said, unless all was well."""
    ended_by_themselves: Sequence[str] = ()


def breaches(found: Found) -> dict[str, Sequence[object]]:
    """Each promise that was not kept, with its witnesses."""
    all_of_them: dict[str, Collection[object]] = {
        **({"did not come back": [found.failure]} if found.failure else _of_the_ledger(found)),
        "charged as new more than once": {
            id_ for id_, times in found.evidence.times_new.items() if times > 1
        },
        "handed over within a lease": found.evidence.held_twice,
        "published past a lease": found.evidence.late,
        "tracebacks": found.evidence.tracebacks,
        "ended by themselves": found.ended_by_themselves,
        "charged otherwise": found.evidence.differing.difference(found.contradicted),
        "exit codes": [f"{name}: {code}" for name, code in found.ends.items() if code and not found.failure],
    }
    return {breach: sorted(witnesses, key=str) for breach, witnesses in all_of_them.items() if witnesses}


def _of_the_ledger(found: Found) -> dict[str, Collection[object]]:
    charged, due = sums(found.kept)
    unknown = {each["id"] for each in found.kept.appointments} - found.history.started.keys()
    return {
        **compare(found.history, found.kept, found.shown).breaches,
        "left on the way": [f"{kind}: {count}" for kind, count in found.left.items()],
        "dead letters missing or wrong": [
            each for each in found.foreign if not each.is_kept(found.dead_letters)
        ],
        "audit": found.audit,
        "sums": [] if charged == due else [f"charged {charged}, due {due}"],
        "nobody started": unknown if len(unknown) > found.history.outcomes["start", "unknown"] else [],
    }


def shortcomings(
    history: History, options: Options, wanted: Collection[Kind], journal: Sequence[Happened], seconds: float
) -> list[str]:
    """Why the run does not count."""
    hits = Counter((each.fault.action, each.fault.where) for each in journal)
    missed = [" ".join(kind) for kind in wanted if not hits[kind]]
    reasons = [f"never happened: {', '.join(missed)}"] if missed else []
    asked_for: dict[str, tuple[float, float]] = {
        "minutes": (seconds / 60, options.minutes),
        "faults": (len(journal), options.faults),
        "appointments": (len(history.started), options.appointments),
    }
    reasons += [
        f"only {there:.3g} of {least:g} {amount}"
        for amount, (there, least) in asked_for.items()
        if there < least
    ]
    reasons += [f"nobody {behaviour}" for behaviour in BEHAVIOURS if not history.behaviours[behaviour]]
    if history.share < LEAST_SHARE:
        reasons.append(f"only {history.share:.0%} of the requests were acknowledged")
    return reasons
