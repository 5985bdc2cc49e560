"""A run that tried too little does not count, and one that does not come back is reported."""

import asyncio
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from support.ledger import History

from campaign import stacks
from campaign.checker import shortcomings
from campaign.clients import BEHAVIOURS
from campaign.failpoints import Control
from campaign.messages import Letter
from campaign.nemesis import Action
from campaign.plan import DEFAULTS, NO_FAULT, Options, Stack, kinds, patterns, unmatched
from campaign.plot import COLOURS
from campaign.report import command
from campaign.run import Campaign, Still


def a_history(appointments: int) -> History:
    history = History()
    history.started = {str(number): {} for number in range(appointments)}
    history.outcomes["start", "acknowledged"] = appointments
    history.behaviours.update(BEHAVIOURS)
    return history


def test_a_run_that_did_all_it_was_asked_for_counts() -> None:
    assert shortcomings(a_history(10), Options(appointments=10, minutes=1), [], [], 60.0) == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"minutes": 2}, "only 1 of 2 minutes"),
        ({"faults": 3}, "only 0 of 3 faults"),
        ({"appointments": 11}, "only 10 of 11 appointments"),
    ],
)
def test_fewer_than_asked_for_do_not_count(more: dict[str, int], reason: str) -> None:
    assert shortcomings(
        a_history(10), replace(Options(appointments=10, minutes=1), **more), [], [], 60.0
    ) == [reason]


def test_people_who_only_did_the_usual_do_not_count() -> None:
    history = a_history(10)
    history.behaviours["finished again"] = 0

    assert shortcomings(history, Options(appointments=10), [], [], 60.0) == ["nobody finished again"]


def test_a_pattern_that_no_fault_meets_is_named() -> None:
    assert unmatched(Options(only=("kill *", "kil *"))) == ["'kil *'"]
    assert unmatched(Options(only=patterns(NO_FAULT))) == []


def test_the_command_repeats_every_option_that_is_not_the_usual_one() -> None:
    options = replace(DEFAULTS["real"], seed=7, only=("kill *",), lease=0.5, defect="lease-ignored")

    assert command(options) == "make prove STACK=real SEED=7 ONLY='kill *' LEASE=0.5 DEFECT=lease-ignored"
    assert command(Options(only=())) == f"make prove STACK=embedded SEED=1 ONLY={NO_FAULT}"


def test_the_makefile_passes_every_option_on() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()

    assert [name for name in Options.__struct_fields__ if f" {name.upper()}" not in makefile] == []


def test_only_a_new_minimum_is_a_movement() -> None:
    still = Still()
    still.seconds(5, 3)
    moved = still._moved  # noqa: SLF001 — the moment that counts

    still.seconds(6, 4)
    assert still._moved == moved  # noqa: SLF001

    still.seconds(6, 2)
    assert still._moved > moved  # noqa: SLF001


class NeverQuiet(stacks.Stack):
    """Nothing was started, and an event is on its way for ever."""

    def __init__(self, folder: Path) -> None:
        self.services = {"appointment": [], "financial": []}
        self.control = Control(folder)

    def actions(self, _: object) -> dict[str, Action]:
        return {}

    def unacknowledged(self) -> int:
        return 1

    def dead_letters(self) -> list[Letter]:
        return []


class Loaded(Campaign):
    """Its load is behind it."""

    async def _load(self) -> None:
        pass

    @property
    def _some_urls(self) -> tuple[str, str]:
        return ("http://appointment", "http://financial")


async def test_a_campaign_ends_by_its_bound_and_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campaign.run.FOLLOWS_TIMEOUT", 0.1)
    nothing = httpx.MockTransport(lambda _: httpx.Response(200, json={"items": [], "next": None}))
    async with httpx.AsyncClient(transport=nothing) as http, asyncio.timeout(10):
        campaign = Loaded(Options(bound=0.1, patience=600), NeverQuiet(tmp_path), http, lambda _: None)
        outcome = await campaign.run()
    assert outcome.breaches == {
        "did not come back": [
            "waiting until all is quiet (waiting for 0 charges, {'unacknowledged': 1}): not over within 0.2 s"
        ]
    }


@pytest.mark.parametrize("stack", ["embedded", "real"])
def test_every_fault_has_a_colour_in_the_picture(stack: Stack) -> None:
    faults = {action for lane in kinds(Options(stack=stack)).values() for action, _ in lane}

    assert faults - COLOURS.keys() == set()


def test_a_finish_among_the_dead_letters_is_a_problem_and_too_many_foreign_are_not() -> None:
    own = {"store": "ok", "dead_letters": "finishes that are dead-lettered: 1, among them of somebody"}
    assert stacks.problems_in(own).keys() == {"dead_letters"}
    assert stacks.problems_in({"dead_letters": "too many to look for finishes among them: 500+"}) == {}
