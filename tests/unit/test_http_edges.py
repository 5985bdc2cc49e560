"""Where the HTTP contract is easily broken at its edge: each of these once was."""

import asyncio
import json
import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from dependency_injector.providers import Object
from support.apps import Clinic, problem, settings, wrong_fields

from clinic.domain import events
from clinic.domain.errors import Misconfigured, Unreadable
from clinic.domain.messaging.ports import Resource
from clinic.entrypoints.settings import load
from clinic.entrypoints.web import parameters
from clinic.testing.builders import a_message

JSON = {"Content-Type": "application/json"}
A_UUID = "84ab6121-c4a8-4684-8cc2-b03024ec0f1d"


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        yield clinic


def test_a_price_beyond_all_exponents_is_unreadable() -> None:
    data = json.loads(a_message().data or b"") | {"price": "1e999999999999"}
    with pytest.raises(Unreadable):
        events.from_message(a_message(data=json.dumps(data).encode()))


def test_a_setting_beyond_all_exponents_is_one_line() -> None:
    with pytest.raises(Misconfigured, match="CLINIC_HOURLY_PRICE"):
        load({"CLINIC_HOURLY_PRICE": "1e99999999999999"})


@pytest.mark.parametrize("technology", ["memory", "sqlite"])
async def test_a_cursor_without_a_zone_is_refused(tmp_path: Path, technology: str) -> None:
    async with Clinic(
        settings("sqlite" if technology == "sqlite" else "memory", tmp_path)
    ).running() as clinic:
        its_id = await clinic.start()
        await clinic.finish(its_id)
        await clinic.charged(its_id)
        cursor = urlsafe_b64encode(msgspec.msgpack.encode(["2020-01-01T00:00:00", A_UUID])).decode()
        assert set(wrong_fields(await clinic.charges.get(f"/?after={cursor}"))) == {"after"}


async def test_a_field_that_comes_twice_is_named(clinic: Clinic) -> None:
    body = f'{{"physician_id": "x", "physician_id": "{A_UUID}", "patient_id": "{A_UUID}"}}'.encode()
    assert wrong_fields(await clinic.appointments.post("/", content=body, headers=JSON))


def test_a_wait_inside_another_preferences_quotes_is_ignored() -> None:
    assert parameters.parse_wait(['foo="a, wait=3", bar']) is None
    assert parameters.parse_wait(['foo="a, wait=3", wait=5']) == 5


@pytest.mark.parametrize(
    "name",
    ["a%00b", "a" * 300, "%C3%BC" * 200, "a/" * 3000, "redoc/bundles/redoc.standalone.js/x", "redoc", ""],
)
async def test_a_name_that_no_file_has_or_can_have_is_a_404(clinic: Clinic, name: str) -> None:
    problem(await clinic.appointments.get(f"/docs/files/{name}"), 404)


async def test_every_problem_is_described_as_a_problem_document(clinic: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges):
        for path, operations in (await client.get("/openapi.json")).json()["paths"].items():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    by_the_app = (
                        status != "431"
                    )  # a head that is too large is refused by the server before it
                    if int(status) >= 400 and by_the_app and not path.startswith("/health"):
                        assert list(response["content"]) == ["application/problem+json"], (path, status)
                        schema = response["content"]["application/problem+json"]["schema"]
                        assert schema == {"$ref": "#/components/schemas/Problem"}, (path, status)


async def test_an_unforeseen_failure_is_described(clinic: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges):
        for path, operations in (await client.get("/openapi.json")).json()["paths"].items():
            for operation in operations.values():
                assert path.startswith("/health") or "500" in operation["responses"], path


async def test_the_form_of_a_date_is_described(clinic: Clinic) -> None:
    schemas = (await clinic.appointments.get("/openapi.json")).json()["components"]["schemas"]
    date = schemas["AppointmentResponse"]["properties"]["start_date"]
    assert re.search(date["pattern"], "2020-12-01 13:00:00")
    assert not re.search(date["pattern"], "2020-12-01T13:00:00Z")


async def test_the_headers_of_the_contract_are_described(clinic: Clinic) -> None:
    of_appointments = (await clinic.appointments.get("/openapi.json")).json()["paths"]
    of_charges = (await clinic.charges.get("/openapi.json")).json()["paths"]
    assert "Location" in of_appointments["/"]["post"]["responses"]["201"]["headers"]
    assert "Retry-After" in of_appointments["/"]["post"]["responses"]["503"]["headers"]
    assert "Preference-Applied" in of_charges["/{appointment_id}"]["get"]["responses"]["200"]["headers"]


async def test_to_show_the_document_does_not_change_the_logging(clinic: Clinic) -> None:
    before = list(logging.root.handlers), logging.root.level
    await clinic.appointments.get("/openapi.json")
    assert (list(logging.root.handlers), logging.root.level) == before


async def test_the_age_of_the_oldest_event_goes_by_the_containers_clock(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))

    class Idle:
        problem = "the transport does not answer"

        async def run(self) -> None:
            await asyncio.Event().wait()

    clinic.appointment.relay.override(Object(Idle()))
    async with clinic.running():
        await clinic.finish(await clinic.start())
        clinic.clock.move(minutes=5)
        ready = (await clinic.appointments.get("/health/ready")).json()
    assert ready["oldest_unpublished_seconds"] == 300


async def test_what_is_not_foreseen_at_the_start_is_the_failure(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    lifecycle = clinic.appointment_lifecycle

    class Torn(Resource):
        async def open(self) -> None:
            raise RuntimeError("torn")

        async def close(self) -> None:
            return None

    async def loop() -> None:
        return None

    with pytest.raises(RuntimeError):
        async with lifecycle.lifespan(lambda: [Torn()], loop):
            pytest.fail("it must not live")
    assert str(lifecycle.failure) == "torn"
