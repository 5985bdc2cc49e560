"""Query parameters: what is wrong is a 400 that says what would be right, and never another list."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support.apps import NOBODY, PATIENT, PHYSICIAN, Clinic, settings, wrong_fields

TOKEN = "0123456789abcdef"  # noqa: S105 — of no other service than these tests'


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path, operator_token=TOKEN)).running() as clinic:
        clinic.charges.headers["Authorization"] = f"Bearer {TOKEN}"
        yield clinic


async def parameters_of(client: httpx.AsyncClient) -> list[tuple[str, str, list[str]]]:
    """Each method and path that takes no body to be reached, with its query parameters."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    return [
        (
            method,
            path.replace("{appointment_id}", NOBODY).replace("{position}", "topic/0/1"),
            [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"],
        )
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]


async def test_an_unknown_parameter_is_a_400_on_every_route(clinic: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges):
        for method, path, known in await parameters_of(client):
            ((name, problem),) = wrong_fields(await client.request(method, f"{path}?physicianid=x")).items()
            assert name == "physicianid"
            assert all(each in problem for each in known or ["no parameters"]), (method, path)


async def test_a_repeated_parameter_is_a_400(clinic: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges):
        for method, path, known in await parameters_of(client):
            for name in known:
                answer = await client.request(method, f"{path}?{name}=1&{name}=1")
                assert wrong_fields(answer) == {name: "comes more than once: give it once"}


async def test_every_unreadable_parameter_says_what_would_be_right(clinic: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges):
        for method, path, known in await parameters_of(client):
            for name in {*known} - {"group", "about"}:  # any text may name a group
                for text in ("%20x", "", "1e5", "null"):
                    problem = wrong_fields(await client.request(method, f"{path}?{name}={text}"))[name]
                    assert ": give " in problem, (path, name, text)


@pytest.mark.parametrize(
    "text", ["2026", "20261130", "1e9", "-1", "0", "1606824000.5", "2026-11", "2026-11-30", "x"]
)
async def test_what_is_not_a_time_is_never_read_as_one(clinic: Clinic, text: str) -> None:
    for name in ("charged_from", "charged_to"):
        problem = wrong_fields(await clinic.charges.get(f"/?{name}={text}"))[name]
        assert problem == "is not a valid time: give one like 2020-12-01 13:00:00 or 2020-12-01T13:00:00Z"


@pytest.mark.parametrize(
    "text",
    ["2020-12-01 13:00:00", "2020-12-01T13:00:00", "2020-12-01T13:00:00Z", "2020-12-01T14:00:00%2B01:00"],
)
async def test_a_time_may_be_written_in_any_usual_form(clinic: Clinic, text: str) -> None:
    assert (await clinic.charges.get(f"/?charged_from={text}&charged_to={text}")).status_code == 200


async def test_pages_for_people_and_metrics_ignore_parameters(clinic: Clinic) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/metrics"):
        assert (await clinic.charges.get(f"{path}?x=1")).status_code == 200


async def test_a_field_that_comes_twice_is_a_400_that_names_it(clinic: Clinic) -> None:
    json = {"Content-Type": "application/json"}
    for body in (
        f'{{"physician_id": "{PHYSICIAN}", "patient_id": "{PATIENT}", "patient_id": "{PATIENT}"}}',
        f'{{"patient_id":"{NOBODY}","physician_id":"{PHYSICIAN}","\\u0070atient_id":"{PATIENT}"}}',
        f'{{"patient_id": "x", "patient_id": "{PATIENT}", "physician_id": "{PHYSICIAN}"}}',
    ):
        wrong = wrong_fields(await clinic.appointments.post("/", content=body, headers=json))
        assert wrong == {"patient_id": "comes more than once: give it once"}
    assert await clinic.all_appointments() == []
    twice = '{"by": "anna", "all": true, "by": "ben"}'
    answer = await clinic.charges.post("/dead-letters/replay/", content=twice, headers=json)
    assert wrong_fields(answer) == {"by": "comes more than once: give it once"}
    colons = {"by": "anna: at 10:00", "all": True}
    assert (await clinic.charges.post("/dead-letters/replay/", json=colons)).status_code == 200
