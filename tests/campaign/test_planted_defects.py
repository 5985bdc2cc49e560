"""The campaign can fail: a service with a deliberate defect is found out, within seconds."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from campaign.defects import DEFECTS
from campaign.embedded import Embedded
from campaign.plan import Options, Stack, unmatched
from campaign.real import RealServers, on_real_servers
from campaign.report import check
from campaign.run import FOLLOWS_TIMEOUT, Outcome, prove
from clinic.adapters.kafka.publisher import MIN_LEASE

SHORT = Options(seed=5, minutes=0, appointments=60, bound=200, share=0, pace=0.02, patience=1.5)

REAL_BOUND, ENDS = 300, 100
"""Seconds of the load on servers, and of what starts and ends beside campaigns."""

Planted = Mapping[str, tuple[str, Mapping[str, Any]]]
"""For each defect, the breach that it must be found by, and the options that show it."""

EMBEDDED: Planted = {
    "key-forgotten": ("started twice", {"only": ()}),
    "acknowledge-before-saving": ("lost", {"only": ("kill save.before",), "faults": 4}),
    "success-on-an-unsafe-write": ("lost", {"only": ("error save.before",), "faults": 4}),
    "conflict-is-success": ("changed", {"only": ()}),
    "end-changes-on-repeat": ("changed", {"only": ()}),
    "publishes-past-its-lease": (
        "published past a lease",
        {"only": ("freeze hand-over.after",), "faults": 3},
    ),
    "wrong-rounding": ("wrong", {"only": ()}),
    "save-without-the-event": ("lost", {"only": ()}),
    "lease-ignored": (
        "handed over within a lease",
        {"only": ("refuse publish.before", "delay publish.before"), "faults": 4},
    ),
    "confirm-clears-the-outbox": ("lost", {"only": ("delay publish.after",), "faults": 4}),
    "confirm-before-publishing": ("lost", {"only": ("kill publish.before",), "faults": 4}),
    "publish-drops-one": ("lost", {"only": ("delay publish.*",), "faults": 4}),
    "commit-before-charging": ("lost", {"only": ("kill charge.before",), "faults": 4}),
    "place-without-the-logs-id": ("lost", {"only": ("replace event log",), "appointments": 30, "faults": 1}),
    "charge-not-idempotent": (
        "charged as new more than once",
        {"only": ("send again", "send otherwise", "error charge.after"), "faults": 6},
    ),
    "known-charges-called-new": (
        "charged as new more than once",
        {"only": ("send again", "error acknowledge.before"), "faults": 6},
    ),
    "dead-letters-forgotten": ("dead letters missing or wrong", {"only": ("send garbage",), "faults": 2}),
    "thread-ends-unheard": ("did not come back", {"only": ("end-thread charge.before",), "over": 15.0}),
    "log-kills-the-loop": ("ended by themselves", {"only": ("log-unwritable *",), "faults": 2}),
}


REAL: Planted = {
    # Delays follow the campaign's lease, and have to outlast the smallest one that Kafka takes.
    "lease-ignored": (
        "handed over within a lease",
        {"only": ("delay publish.before",), "faults": 4, "lease": 4 * MIN_LEASE},
    ),
    "one-partition-committed": ("left on the way", {"only": (), "lease": MIN_LEASE}),
}


BATCH_SIZE = 2
SEEDS = (5, 6, 7)
"""A few seconds may pass without the one moment that shows a defect: then the next seed has to find it."""
TOGETHER = [list(EMBEDDED)[first : first + BATCH_SIZE] for first in range(0, len(EMBEDDED), BATCH_SIZE)]


def test_every_defect_is_tried() -> None:
    assert EMBEDDED.keys() | REAL.keys() == DEFECTS.keys()


@pytest.mark.parametrize(("stack", "defects"), [("embedded", EMBEDDED), ("real", REAL)])
def test_every_pattern_of_a_planted_defect_meets_a_fault(stack: Stack, defects: Planted) -> None:
    wanted = [pattern for _, chosen in defects.values() for pattern in chosen["only"]]

    assert unmatched(Options(stack=stack, only=wanted)) == []


@pytest.mark.timeout(len(SEEDS) * (SHORT.bound + FOLLOWS_TIMEOUT) + ENDS)
@pytest.mark.parametrize("defects", TOGETHER, ids=", ".join)
async def test_on_the_embedded_stack_it_finds(
    defects: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def campaign(defect: str, seed: int) -> Outcome:
        folder = tmp_path / f"{defect}-{seed}"
        folder.mkdir()
        options = replace(SHORT, defect=defect, seed=seed, **EMBEDDED[defect][1])
        return await prove(options, Embedded(folder, options), lambda _: None)

    missed = defects
    for seed in SEEDS:
        outcomes = await asyncio.gather(*(campaign(defect, seed) for defect in missed))
        for outcome in outcomes:
            _show(capsys, outcome)
        missed = [
            each.options.defect for each in outcomes if EMBEDDED[each.options.defect][0] not in each.breaches
        ]
    assert missed == []


@pytest.mark.timeout(REAL_BOUND + FOLLOWS_TIMEOUT + ENDS)
@pytest.mark.parametrize("defect", REAL)
async def test_on_the_real_stack_it_finds(
    defect: str, tmp_path: Path, below: RealServers, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, chosen = REAL[defect]
    options = replace(SHORT, stack="real", bound=REAL_BOUND, patience=6.0, defect=defect, **chosen)

    with on_real_servers(tmp_path, options, below) as stack:
        outcome = await prove(options, stack, lambda _: None)

    _show(capsys, outcome)
    assert expected in outcome.breaches


def _show(capsys: pytest.CaptureFixture[str], outcome: Outcome) -> None:
    found = ", ".join(f"{breach}: {len(witnesses)}" for breach, witnesses in outcome.breaches.items())
    with capsys.disabled():
        sys.stdout.write(
            f"\n{outcome.options.defect}: {check(outcome)} in {outcome.ended - outcome.began:.1f} "
            f"s ({found})\n"
        )
