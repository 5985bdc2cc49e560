"""Where a charge is, as each service answers it, and its event published again by an operator."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from support.apps import NOBODY, Clinic, exactly, problem, settings

from clinic.domain.events import event_id
from clinic.testing.builders import a_letter

TOKEN = "0123456789abcdef"  # noqa: S105 — of no other service than these tests'
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(params=["memory", "sqlite"])
async def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings(request.param, tmp_path, operator_token=TOKEN)).running() as clinic:
        yield clinic


async def test_an_open_appointment_waits_to_be_finished(clinic: Clinic) -> None:
    its_id = await clinic.start()
    answer = await clinic.appointments.get(f"/{its_id}/trace/")
    assert answer.status_code == 200
    assert answer.json() == {
        "appointment_id": its_id,
        "steps": [{"event": "started", "at": "2020-12-01T13:00:00Z"}],
        "waits_for": "to be finished",
        "explanation": "nobody has finished it yet",
    }


async def test_each_service_answers_its_own_steps(clinic: Clinic) -> None:
    its_id = await clinic.start()
    clinic.clock.move(minutes=90)
    await clinic.finish(its_id)
    await clinic.charged(its_id)
    await clinic.appointment_telemetry.seen("published")
    of_appointment, of_charge = await _traces(clinic, its_id)
    assert [step["event"] for step in of_appointment["steps"]] == [
        "started",
        "finished",
        "saved",
        "published",
    ]
    assert of_appointment["steps"][1]["waited_seconds"] == 5400
    assert of_appointment["waits_for"] is None
    assert [step["event"] for step in of_charge["steps"]] == ["published", "received", "charged"]
    assert of_charge["steps"][0]["position"] == of_appointment["steps"][3]["position"]
    assert str(of_charge["steps"][2]["total"]) == "400.00"
    assert (of_charge["waits_for"], of_charge["explanation"]) == ("nothing", "charged 400.00")


async def test_a_dead_letter_about_it_waits_for_a_person(clinic: Clinic) -> None:
    its_id = await clinic.start()
    letter = a_letter(about=its_id, message_id=str(event_id(UUID(its_id))))
    await clinic.financial.dead_letters().add([letter])
    trace = (await clinic.charges.get(f"/{its_id}/trace/")).json()
    assert trace["waits_for"] == "a person"
    assert trace["steps"][-1]["note"] == letter.reason


async def test_what_nobody_knows_is_not_found(clinic: Clinic) -> None:
    for service in (clinic.appointments, clinic.charges):
        problem(await service.get(f"/{NOBODY}/trace/"), 404)
        problem(await service.get("/abc/trace/"), 404)


async def test_an_operator_publishes_an_event_again_and_the_charge_stays(clinic: Clinic) -> None:
    its_id = await clinic.start()
    await clinic.finish(its_id)
    charge = exactly(await clinic.charged(its_id))
    await clinic.appointment_telemetry.seen("published")
    answer = await clinic.appointments.post(f"/{its_id}/republish/", headers=WITH_TOKEN)
    assert answer.status_code == 202
    assert answer.json()["appointment_id"] == its_id
    await clinic.appointment_telemetry.seen("published", times=2)
    await clinic.financial_telemetry.seen("already charged")
    assert exactly(await clinic.charged(its_id)) == charge


async def test_without_the_token_nothing_is_published_again(clinic: Clinic) -> None:
    its_id = await clinic.start()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = await clinic.appointments.post(f"/{its_id}/republish/", headers=headers)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_has_no_event_is_not_published_again(clinic: Clinic) -> None:
    open_one = await clinic.start()
    answer = await clinic.appointments.post(f"/{open_one}/republish/", headers=WITH_TOKEN)
    assert "not finished" in problem(answer, 409)["detail"]
    problem(await clinic.appointments.post(f"/{NOBODY}/republish/", headers=WITH_TOKEN), 404)


async def test_where_no_token_is_set_there_is_no_such_path(tmp_path: Path) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        its_id = await clinic.start()
        problem(await clinic.appointments.post(f"/{its_id}/republish/", headers=WITH_TOKEN), 404)


async def _traces(clinic: Clinic, its_id: str) -> list[dict]:  # type: ignore[type-arg]
    answers: list[httpx.Response] = [
        await service.get(f"/{its_id}/trace/") for service in (clinic.appointments, clinic.charges)
    ]
    return [exactly(answer) for answer in answers]
