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
from campaign.installed import server_in
from campaign.plan import DEFAULTS, kinds
from campaign.real import RealServers, on_real_servers
from campaign.run import FOLLOWS_TIMEOUT, Outcome, prove

Judged = Callable[[Outcome], None]
WIDE = 120
BOUND, ENDS = 800, 100
"""Seconds of the load, and of what starts and ends beside a campaign."""
OF_A_MINUTE = (
    "kill *",
    "error *.after",  # an error before a call reaches no adapter: it is the same on both stacks
    "refuse *",
    "cut *",
    "pause *",
    "freeze hand-over.after",
    "send *",
    "raise *",
    "raise-base *",
    "cancel *",
    "log-* *",
    "end-* *",
)
"""On servers, faults take their time; `make prove STACK=real` has them all."""
LEFT_TO_MAKE_PROVE = ("restart *", "freeze reserve.*", "delay reserve.*", "error reserve.before")
"""What only servers have, and no campaign of the suite tries."""


def test_every_kind_of_fault_is_tried_on_a_stack_that_has_it() -> None:
    embedded, real, tried, left = (
        {kind for lane in kinds(options).values() for kind in lane}
        for options in (
            DEFAULTS["embedded"],
            DEFAULTS["real"],
            replace(DEFAULTS["real"], only=OF_A_MINUTE),
            replace(DEFAULTS["real"], only=LEFT_TO_MAKE_PROVE),
        )
    )

    assert embedded | real == embedded | tried | left
    assert left.isdisjoint(embedded | tried)


def test_a_transport_from_outside_is_tried_with_what_can_happen_to_it() -> None:
    embedded, plugged = DEFAULTS["embedded"], replace(DEFAULTS["embedded"], transport="nats", server="a.py")
    ours, theirs = ({kind for lane in kinds(its).values() for kind in lane} for its in (embedded, plugged))
    assert {kind for kind in ours - theirs if not kind[0].startswith("end-")} == {
        ("fill", "publish.before"),
        ("replace", "event log"),
    }
    assert theirs - ours == {("kill", "server")}


def test_a_server_is_found_in_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "their_server.py"
    file.write_text("from clinic.testing.servers import ServerProcess\nclass SERVER(ServerProcess): ...\n")
    assert server_in(file).__name__ == "SERVER"


@pytest.fixture
def judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Judged:
    """Shows what came of a campaign, and fails where that was not enough."""

    def compare(outcome: Outcome) -> None:
        with capsys.disabled():
            report.show(Console(width=WIDE), outcome)
        report.write(outcome, tmp_path)
        said = [  # all of it: where CI ran this, nothing else of it is left
            f"{breach}: {each}"
            for breach, witnesses in outcome.breaches.items()
            for each in witnesses[: report.SHOWN]
        ]
        again = report.command(outcome.options)
        assert not said, "\n".join([report.check(outcome), f"again: {again}", *said])
        assert not outcome.shortcomings

    return compare


@pytest.mark.timeout(BOUND + FOLLOWS_TIMEOUT + ENDS)
async def test_on_the_embedded_stack_every_acknowledged_finish_has_exactly_one_charge(
    tmp_path: Path, judged: Judged
) -> None:
    options = replace(DEFAULTS["embedded"], minutes=0, appointments=350, faults=42, bound=BOUND)

    judged(await prove(options, Embedded(tmp_path, options), lambda _: None))


@pytest.mark.timeout(BOUND + FOLLOWS_TIMEOUT + ENDS)
async def test_on_the_real_stack_every_acknowledged_finish_has_exactly_one_charge(
    tmp_path: Path, judged: Judged, below: RealServers
) -> None:
    options = replace(DEFAULTS["real"], minutes=0, appointments=150, faults=20, bound=BOUND, only=OF_A_MINUTE)

    with on_real_servers(tmp_path, options, below) as stack:
        judged(await prove(options, stack, lambda _: None))
