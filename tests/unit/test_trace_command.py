"""`clinic trace`: what both contexts know of one appointment, put together."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace
from support.folders import Folder, a_folder
from support.schemas import json_schema

from clinic.domain.appointment.model import Appointment
from clinic.domain.events import event_id
from clinic.domain.reconciliation.tracing import Traced
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.testing.builders import TWO_O_CLOCK, a_history_entry, a_letter, an_appointment, an_origin

SCHEMA = Path(__file__).parent / "schemas" / "trace.json"
ONE = an_appointment(id=UUID(int=1))
OWN = str(event_id(ONE.id))
SOON = TWO_O_CLOCK + timedelta(milliseconds=250)


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Folder]:
    with a_folder(tmp_path, monkeypatch, capsys) as folder:
        yield folder


def traced(folder: Folder, appointment: Appointment = ONE) -> Any:
    (document,) = folder.json("trace", str(appointment.id))
    return document


def steps(document: Any) -> list[str]:
    return [step["event"] for step in document["steps"]]


def test_a_charge_shows_its_whole_way_and_waits_for_nothing(folder: Folder) -> None:
    folder.finish(ONE)
    folder.charge(ONE)
    document = traced(folder)
    assert steps(document)[:2] == ["started", "finished"]
    assert sorted(steps(document)[2:]) == ["charged", "published", "received", "saved"]
    assert (document["waits_for"], document["explanation"], document["unreadable"]) == (
        "nothing",
        "charged 400.00",
        {},
    )
    assert folder.command("trace", str(ONE.id)).splitlines()[-1] == "Done: charged 400.00"


def test_a_discarded_event_is_not_shown_as_done(folder: Folder) -> None:
    folder.finish(ONE)
    letter = a_letter(about=str(ONE.id), message_id=OWN)

    async def discard(_: AppointmentContainer, financial: FinancialContainer) -> None:
        letters = financial.dead_letters()
        await letters.add([letter])
        await letters.record(letter, a_history_entry(event="discarded"))

    folder.run(discard)
    assert traced(folder)["waits_for"] == "nothing"
    assert "Not charged: its dead letter was discarded" in folder.command("trace", str(ONE.id))


def test_it_reads_well_within_eighty_columns(folder: Folder) -> None:
    folder.finish(ONE, position="clinic.appointments/5/123456789")
    printed = folder.command("trace", str(ONE.id))
    assert "started    2020-12-01 13:00:00" in printed
    assert "finished   2020-12-01 14:00:00      1 h 0 min" in printed
    assert "clinic.appointments/5/123456789" in printed
    assert "Waiting to be received: is the financial service running?" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80


def test_what_is_not_finished_waits_to_be(folder: Folder) -> None:
    folder.run(lambda appointment, _: appointment.appointments().add(ONE))
    document = traced(folder)
    assert (steps(document), document["waits_for"]) == (["started"], "to be finished")


async def _told(appointment: Any, _: Any) -> None:
    await appointment.appointments().add(an_appointment(id=ONE.id, end=TWO_O_CLOCK))
    await appointment.republish_finished()(ONE.id)


def test_what_is_saved_and_not_published_waits_to_be(folder: Folder) -> None:
    folder.run(_told)
    document = traced(folder)
    assert (steps(document), document["waits_for"]) == (["started", "finished", "saved"], "to be published")


def test_what_is_published_and_not_charged_waits_to_be_received(folder: Folder) -> None:
    folder.finish(ONE)
    assert traced(folder)["waits_for"] == "to be received"


def test_what_is_dead_lettered_waits_for_a_person_and_names_the_command(folder: Folder) -> None:
    folder.finish(ONE)
    letter = a_letter(
        about=str(ONE.id),
        message_id=OWN,
        published_at=TWO_O_CLOCK,
        first_seen=SOON,
        attempts=2,
        reason="it \x1b[2J",
    )
    failed = a_history_entry(event="failed again", note="still not")
    folder.run(lambda _, financial: financial.dead_letters().add([letter]))
    folder.run(lambda _, financial: financial.dead_letters().record(letter, failed))
    document = traced(folder)
    assert document["waits_for"] == "a person"
    assert "`clinic dead-letters replay log/1`" in document["explanation"]
    (aside,) = [step for step in document["steps"] if step["event"] == "dead-lettered"]
    assert (aside["attempts"], aside["note"]) == (2, "it \x1b[2J")
    (again,) = [step for step in document["steps"] if step["event"] == "failed again"]
    assert (again["by"], again["note"]) == ("anna", "still not")
    printed = folder.command("trace", str(ONE.id))
    assert "Waiting for a person: dead-lettered" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("state", ["waiting", "discarded"])
def test_a_letter_of_somebody_else_hides_nothing_of_what_it_waits_for(folder: Folder, state: str) -> None:
    letter = a_letter(about=str(ONE.id), state=state)
    folder.run(lambda _, financial: financial.dead_letters().add([letter]))
    assert traced(folder)["waits_for"] == "unknown"
    other = an_appointment(id=UUID(int=2))
    folder.run(
        lambda _, financial: financial.dead_letters().add(
            [replace(letter, position="log/7", about=str(other.id))]
        )
    )
    folder.finish(other)
    document = traced(folder, other)
    assert document["waits_for"] == "to be received"
    assert ("log/7 is about it, too" in document["explanation"]) == (state == "waiting")
    folder.run(_told)
    assert traced(folder)["waits_for"] == "to be published"


def test_a_publication_that_both_contexts_know_is_shown_once_and_another_on_its_own(folder: Folder) -> None:
    folder.finish(ONE)
    folder.charge(ONE)
    assert steps(traced(folder)).count("published") == 1
    other = an_appointment(id=UUID(int=2))
    folder.finish(other, position="log/2")
    folder.charge(other)
    assert steps(traced(folder, other)).count("published") == 2


def test_an_event_republished_later_comes_after_the_charge(folder: Folder) -> None:
    folder.charge(ONE)
    folder.finish(ONE)  # saved by the clock of today
    assert steps(traced(folder))[-1] == "saved"


@pytest.mark.parametrize(("late", "wait"), [(0, 0.0), (0.999, 0.0), (1.2, 1.0), (-0.4, 0.0)])
def test_beside_whole_seconds_a_wait_is_in_whole_seconds_and_never_negative(
    folder: Folder, late: float, wait: float
) -> None:
    moment = TWO_O_CLOCK + timedelta(seconds=late)
    folder.run(
        lambda appointment, _: appointment.appointments().add(an_appointment(id=ONE.id, end=TWO_O_CLOCK))
    )
    folder.charge(
        ONE,
        origin=an_origin(published_at=moment, received_at=moment),
        charged_at=moment + timedelta(milliseconds=7),
    )
    (_, finished, published, received, charged) = traced(folder)["steps"]
    assert float(finished["waited_seconds"]) == 3600
    assert float(published["waited_seconds"]) == wait
    assert (float(received["waited_seconds"]), float(charged["waited_seconds"])) == (0, 0.007)


def test_a_charge_that_only_the_financial_context_knows_is_shown_with_that(folder: Folder) -> None:
    folder.charge(ONE)
    document = traced(folder)
    assert (steps(document), document["waits_for"]) == (["published", "received", "charged"], "nothing")
    assert document["explanation"] == "charged 400.00, though no finished appointment is known by this id"


@pytest.mark.parametrize(
    ("gone", "name", "shown", "waits_for"),
    [
        ("financial.db", "financial", ["started", "finished", "published", "saved"], "unknown"),
        ("appointment.db", "appointment", ["published", "received", "charged"], "nothing"),
    ],
)
def test_where_one_context_cannot_be_read_the_other_is_shown(
    folder: Folder, gone: str, name: str, shown: list[str], waits_for: str
) -> None:
    folder.finish(ONE)
    folder.charge(ONE)
    (folder.path / gone).unlink()
    document = traced(folder)
    assert (sorted(steps(document)), document["waits_for"]) == (sorted(shown), waits_for)
    assert list(document["unreadable"]) == [name]
    assert f"The {name} context cannot be read: there is no" in folder.command("trace", str(ONE.id))


def test_where_nothing_can_be_read_it_says_why(folder: Folder) -> None:
    for each in ("financial.db", "appointment.db"):
        (folder.path / each).unlink()
    assert "CLINIC_DATA_DIR" in folder.command("trace", str(ONE.id), code=1)


def test_an_id_that_nobody_knows_is_not_found(folder: Folder) -> None:
    assert f"there is no appointment {ONE.id}" in folder.command("trace", str(ONE.id), code=1)


def test_what_is_no_id_ends_with_two(folder: Folder) -> None:
    with pytest.raises(SystemExit) as ended:
        folder.command("trace", "nonsense")
    assert ended.value.code == 2


def test_the_shape_for_machines_is_as_it_was() -> None:
    assert json_schema(Traced) == json.loads(SCHEMA.read_text())
