"""Every error of the contract is a problem document: neither HTML nor a traceback, and no change is half
done.
"""

import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog
from dependency_injector.providers import Object, Singleton
from support.apps import (
    NIL,
    NOBODY,
    PATIENT,
    PHYSICIAN,
    Clinic,
    UnreachableAppointments,
    UnreachableCharges,
    problem,
    settings,
    wrong_fields,
)
from support.logs import Written

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.use_cases import StartAppointment
from clinic.domain.errors import Misconfigured
from clinic.domain.financial.model import Charge
from clinic.domain.money import Money
from clinic.entrypoints.settings import load
from clinic.entrypoints.telemetry import configure_logging

JSON = {"Content-Type": "application/json"}
GOOD = json.dumps({"physician_id": PHYSICIAN, "patient_id": PATIENT}).encode()
A_UUID = "84ab6121-c4a8-4684-8cc2-b03024ec0f1d"


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        yield clinic
        assert await clinic.all_appointments() == []  # whatever was refused has changed nothing


async def post(clinic: Clinic, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return await clinic.appointments.post("/", content=body, headers=JSON if headers is None else headers)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"not json",
        GOOD[:-1],
        GOOD + b"x",
        GOOD + GOOD,
        b"'" + GOOD + b"'",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        b'{"physician_id": "\xff\xfe", "patient_id": "x"}',
        b"\xff",
        b'{"physician_id": NaN, "patient_id": Infinity}',
        b'{"physician_id": "\\ud800", "patient_id": "\\ud800"}',
        b"[" * 60_000,
        b'{"physician_id":' * 4_000,
        b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b"null",
        b"true",
        b"42",
        b'"text"',
        b"[]",
        b"[" + GOOD + b"]",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_a_body_that_is_no_json_object_is_a_400_about_the_body(clinic: Clinic, body: bytes) -> None:
    assert set(wrong_fields(await post(clinic, body))) == {"body"}


async def test_every_field_that_is_wrong_is_named_and_no_other(clinic: Clinic) -> None:
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"physician_id", "patient_id"}),
        ({"physician_id": A_UUID}, {"patient_id"}),
        ({"patient_id": A_UUID}, {"physician_id"}),
        ({"physician_id": "x", "patient_id": "y"}, {"physician_id", "patient_id"}),
        ({"physician_id": 5, "patient_id": A_UUID}, {"physician_id"}),
        ({"physician_id": A_UUID, "patient_id": None}, {"patient_id"}),
        ({"physician_id": [A_UUID], "patient_id": {"id": A_UUID}}, {"physician_id", "patient_id"}),
        ({"physician_id": True, "patient_id": 1.5}, {"physician_id", "patient_id"}),
        ({"physician_id": NIL, "patient_id": A_UUID}, {"physician_id"}),
        ({"physician_id": NIL, "patient_id": NIL}, {"physician_id", "patient_id"}),
        ({"physician_id": A_UUID[:-1], "patient_id": A_UUID + "0"}, {"physician_id", "patient_id"}),
        ({"physician_id": f"{{{A_UUID}}}", "patient_id": f" {A_UUID}"}, {"physician_id", "patient_id"}),
        ({"physician_id": "", "patient_id": A_UUID}, {"physician_id"}),
        ({"physician_id": A_UUID, "patient_id": A_UUID, "room": 7}, {"room"}),
        ({"physician_id": A_UUID, "patient_id": A_UUID, "": 7}, {""}),
        ({"Physician_id": A_UUID, "patient_id": A_UUID}, {"physician_id", "Physician_id"}),
        (
            {"physician_id": "x", "room": 7, "start_date": None},
            {"physician_id", "patient_id", "room", "start_date"},
        ),
    ]
    for body, fields in cases:
        named = wrong_fields(await post(clinic, json.dumps(body).encode()))
        assert set(named) == fields, body
        assert all(named.values())


async def test_each_field_says_what_is_wrong_and_what_would_be_right(clinic: Clinic) -> None:
    missing = wrong_fields(await post(clinic, b"{}"))["patient_id"]
    malformed = wrong_fields(await post(clinic, b'{"patient_id": "x"}'))["patient_id"]
    nil = wrong_fields(await post(clinic, json.dumps({"patient_id": NIL}).encode()))["patient_id"]
    unknown = wrong_fields(await post(clinic, b'{"room": 7}'))["room"]
    assert "missing" in missing
    assert "UUID" in missing
    assert re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", malformed)
    assert "nil" in nil
    assert "known" in unknown
    assert len({missing, malformed, nil, unknown}) == 4


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/msgpack",
        "text/json",
        ";;=",
        "",
    ],
)
async def test_what_is_not_said_to_be_json_is_a_415(clinic: Clinic, content_type: str) -> None:
    problem(await post(clinic, GOOD, {"Content-Type": content_type}), 415)


async def test_a_body_without_a_content_type_is_a_415_that_says_which_to_send(clinic: Clinic) -> None:
    assert "application/json" in problem(await post(clinic, GOOD, {}), 415)["detail"]


async def test_more_than_64_kib_is_a_413(clinic: Clinic) -> None:
    problem(await post(clinic, GOOD + b" " * (64 * 1024 - len(GOOD) + 1)), 413)
    document = problem(await post(clinic, b"x" * 1_000_000), 413)
    assert (document["type"], document["title"]) == (
        "urn:clinic:problem:content-too-large",
        "Content Too Large",
    )


async def test_more_than_64_kib_is_a_413_also_if_its_length_is_not_given(clinic: Clinic) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    problem(await clinic.appointments.post("/", content=pieces(), headers=JSON), 413)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/nothing/",
        "/a/b",
        "/health",
        "/health/nothing",
        "/docs/nothing",
        "/docs/files/nothing.js",
        "/index.html",
        "/%2e%2e",
        "/%ff",
    ],
)
async def test_an_unknown_path_is_a_404_whatever_the_client_would_like_to_see(
    clinic: Clinic, path: str
) -> None:
    for client in (clinic.appointments, clinic.charges):
        problem(await client.get(path, headers={"Accept": "text/html"}), 404)
        for method in ("POST", "PUT", "DELETE"):
            answer = await client.request(method, path)
            problem(
                answer, 405 if answer.status_code == 405 else 404
            )  # some have the form of a path that takes other methods


async def test_a_wrong_method_is_a_405_that_names_the_right_ones(clinic: Clinic) -> None:
    appointments, charges = clinic.appointments, clinic.charges
    for client, path, right in [
        (appointments, "/", {"GET", "POST"}),
        (appointments, f"/{NOBODY}/", {"GET", "POST"}),
        (charges, "/", {"GET"}),
        (charges, f"/{NOBODY}/", {"GET"}),
        (charges, "/docs", {"GET"}),
        (appointments, "/redoc", {"GET"}),
        (appointments, "/openapi.json", {"GET"}),
        (appointments, "/health/live", {"GET"}),
        (charges, "/health/ready", {"GET"}),
        (charges, "/metrics", {"GET"}),
    ]:
        wrong = {"PUT", "PATCH", "DELETE"} | ({"POST"} - right)
        for method in wrong:
            for spelling in {path, path.rstrip("/") or "/"}:
                answer = await client.request(method, spelling)
                problem(answer, 405)
                allowed = set(answer.headers["allow"].replace(" ", "").split(","))
                assert right <= allowed, (method, path)
                assert not allowed & wrong, (method, path)


class BrokenAppointments(MemoryAppointments):
    """Fails in a way that nobody has foreseen."""

    async def add(self, appointment: Appointment, *, once: bytes = b"") -> Appointment:  # noqa: ARG002 — broken on purpose
        raise RuntimeError(f"the secret of {appointment.id}")

    async def get(self, appointment_id: UUID) -> Appointment:
        raise RuntimeError(f"the secret of {appointment_id}")

    async def page(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret of everyone")


class BrokenCharges(MemoryCharges):
    """Fails in a way that nobody has foreseen."""

    async def get(self, appointment_id: UUID) -> Charge:
        raise RuntimeError(f"the secret of {appointment_id}")

    async def wait_for(self, appointment_id: UUID, within: float) -> Charge:
        raise RuntimeError(f"the secret of {appointment_id} within {within}")

    async def page(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the secret of everyone")


async def all_requests(clinic: Clinic) -> list[httpx.Response]:
    """One of each that needs a store, behind the check of the input."""
    return [
        await post(clinic, GOOD),
        await clinic.appointments.post(f"/{NOBODY}/"),
        await clinic.appointments.get(f"/{NOBODY}/"),
        await clinic.appointments.get("/"),
        await clinic.charges.get(f"/{NOBODY}/"),
        await clinic.charges.get(f"/{NOBODY}/", headers={"Prefer": "wait=5"}),
        await clinic.charges.get("/"),
    ]


async def test_an_unforeseen_failure_is_a_500_that_tells_no_secret_and_is_counted(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.appointments.override(Object(BrokenAppointments(clinic.clock, 3.0)))
    clinic.financial.charges.override(Object(BrokenCharges()))
    async with clinic.running():
        for answer in await all_requests(clinic):
            problem(answer, 500)
            assert "secret" not in answer.text
            assert "RuntimeError" not in answer.text
        assert (
            'clinic_events_total{event="unforeseen"} 4.0' in (await clinic.appointments.get("/metrics")).text
        )
        assert 'clinic_events_total{event="unforeseen"} 3.0' in (await clinic.charges.get("/metrics")).text


class PanicException(BaseException):
    """What a library in Rust raises: no `Exception`."""


@pytest.mark.parametrize("error", [PanicException, Misconfigured])
async def test_a_panic_or_a_wrong_set_up_is_no_fault_of_the_request_and_is_logged(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def before_1970() -> UUID:
        raise error("the clock is before 1970")

    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.start_appointment.override(
        Singleton(StartAppointment, clinic.appointment.at_hand, clinic.clock, before_1970, Money.of_cents(1))
    )
    async with clinic.running():
        problem(await post(clinic, GOOD), 500)
        assert (
            'clinic_events_total{event="unforeseen"} 1.0' in (await clinic.appointments.get("/metrics")).text
        )


async def test_a_store_that_does_not_answer_is_a_503_that_says_when_to_ask_again(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    store = UnreachableAppointments(clinic.clock, 3.0)
    clinic.appointment.appointments.override(Object(store))
    clinic.financial.charges.override(Object(UnreachableCharges()))
    async with clinic.running():
        for answer in await all_requests(clinic):
            assert "do not answer" in problem(answer, 503)["detail"]
            assert int(answer.headers["retry-after"]) > 0
        store.reachable = True
        assert await clinic.all_appointments() == []


async def test_bad_input_is_answered_without_asking_the_store(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.appointments.override(Object(BrokenAppointments(clinic.clock, 3.0)))
    async with clinic.running():
        wrong_fields(await post(clinic, b"{}"))
        wrong_fields(await clinic.appointments.get("/?limit=0"))
        problem(await clinic.appointments.get("/abc/"), 404)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", GOOD + b" " * (64 * 1024 - len(GOOD))),
        ("application/json; charset=utf-8", GOOD),
        ("APPLICATION/JSON", GOOD),
        ("application/json", b"\r\n\t " + GOOD),
        (
            "application/json",
            json.dumps({"patient_id": PATIENT.upper(), "physician_id": PHYSICIAN.upper()}).encode(),
        ),
    ],
    ids=["exactly 64 KiB", "charset", "capitals", "white space", "capitals in ids"],
)
async def test_what_is_right_in_an_unusual_way_is_taken(
    tmp_path: Path, content_type: str, body: bytes
) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        answer = await post(clinic, body, {"Content-Type": content_type})
        assert answer.status_code == 201
        assert (answer.json()["physician_id"], answer.json()["patient_id"]) == (PHYSICIAN, PATIENT)


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_the_log_of_an_unforeseen_failure_shows_no_body(tmp_path: Path, log_format: str) -> None:
    written = Written()
    before, level = structlog.get_config(), logging.getLogger("uvicorn.error").level
    try:
        its = load({"CLINIC_LOG_FORMAT": log_format})
        configure_logging(its, written)
        clinic = Clinic(settings("memory", tmp_path))
        clinic.appointment.appointments.override(Object(BrokenAppointments(clinic.clock, 3.0)))
        async with clinic.running():
            body = json.dumps({"physician_id": PHYSICIAN, "patient_id": PATIENT}).encode()
            problem(await clinic.appointments.post("/", content=body, headers=JSON), 500)
    finally:
        structlog.configure(**before)
        logging.getLogger("uvicorn.error").setLevel(level)
    assert "the secret of" in written.getvalue()  # who runs the service sees what went wrong
    assert PATIENT not in written.getvalue()
