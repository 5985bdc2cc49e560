"""The promise, under everything that the campaign knows: an acknowledged finish has exactly one charge that
never changes.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from campaign import report
from campaign.embedded import Embedded
from campaign.plan import DEFAULTS
from campaign.real import RealServers, on_real_servers
from campaign.run import Outcome, prove

Judged = Callable[[Outcome], None]
WIDE = 120
OF_A_MINUTE = (
    "kill *",
    "error *",
    "refuse *",
    "cut *",
    "pause *",
    "freeze hand-over.after",
    "send *",
    "raise hand-over.after",
    "raise-base charge.after",
    "cancel confirm.before",
    "log-* charge.before",
)
"""On servers, faults take their time; `make prove STACK=real` has them all."""


@pytest.fixture
def judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Judged:
    """Shows what came of a campaign, and fails where that was not enough."""

    def compare(outcome: Outcome) -> None:
        with capsys.disabled():
            report.show(Console(width=WIDE), outcome)
        report.write(outcome, tmp_path)
        assert not outcome.breaches, (
            f"{report.check(outcome)}; again: {report.command(outcome.options)}; {tmp_path}"
        )
        assert not outcome.shortcomings

    return compare


@pytest.mark.timeout(1000)
async def test_on_the_embedded_stack_every_acknowledged_finish_has_exactly_one_charge(
    tmp_path: Path, judged: Judged
) -> None:
    options = replace(DEFAULTS["embedded"], minutes=0, appointments=500, faults=60, bound=800)

    judged(await prove(options, Embedded(tmp_path, options), lambda _: None))


@pytest.mark.timeout(1000)
async def test_on_the_real_stack_every_acknowledged_finish_has_exactly_one_charge(
    tmp_path: Path, judged: Judged, below: RealServers
) -> None:
    options = replace(DEFAULTS["real"], minutes=0, appointments=200, faults=30, bound=800, only=OF_A_MINUTE)

    with on_real_servers(tmp_path, options, below) as stack:
        judged(await prove(options, stack, lambda _: None))
