"""A trace that comes with a request is passed on as text: with its event, to its charge, into the log."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from dependency_injector.providers import Object
from support.apps import Clinic, UnreachableAppointments, problem, settings
from support.logs import Written

from clinic.adapters import cloudevents
from clinic.adapters.memory.transport import MemoryPublisher
from clinic.domain.messaging.messages import Message
from clinic.entrypoints import trace_context, tracing
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.technologies.memory import memory_log
from clinic.entrypoints.telemetry import LoggingTelemetry, configure_logging
from clinic.entrypoints.trace_context import TraceContext
from clinic.testing.builders import a_letter, a_message

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
TOKEN = "a token of thirty-two characters"  # noqa: S105 — of no other service than these tests'


@pytest.fixture
def written() -> Iterator[Written]:
    written = Written()
    configure_logging(Settings(log_format="json"), written)
    yield written
    structlog.reset_defaults()


@pytest.fixture
async def clinic(tmp_path: Path, written: Written) -> AsyncIterator[Clinic]:
    assert not written.getvalue()
    async with Clinic(settings("memory", tmp_path, operator_token=TOKEN)).running() as clinic:
        yield clinic


def lines(written: Written) -> dict[str, dict[str, Any]]:
    """The last line of each event."""
    return {line["event"]: line for line in map(json.loads, written.getvalue().splitlines())}


async def sent(clinic: Clinic, *headers: tuple[str, str]) -> Message:
    """The event of an appointment that was finished by a request with these headers."""
    its_id = await clinic.start()
    assert (await clinic.appointments.post(f"/{its_id}/", headers=[*headers])).is_success
    await clinic.charged(its_id)
    await clinic.appointment_telemetry.seen("published")
    (_, message) = memory_log(clinic.financial.shared()).entries[-1]
    return message


async def arrived(clinic: Clinic, message: Message) -> None:
    """This message is in the log."""
    await MemoryPublisher(memory_log(clinic.financial.shared()), clinic.clock).publish([message])


def plain(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in cloudevents.headers(message)}


async def test_a_trace_is_kept_with_the_event_and_goes_with_the_message(clinic: Clinic) -> None:
    headers = plain(await sent(clinic, ("traceparent", PARENT), ("tracestate", STATE)))
    assert (headers["ce_traceparent"], headers["ce_tracestate"]) == (PARENT, STATE)
    assert (headers["traceparent"], headers["tracestate"]) == (PARENT, STATE)


async def test_every_line_about_the_event_names_its_trace(clinic: Clinic, written: Written) -> None:
    await sent(clinic, ("traceparent", PARENT))
    found = lines(written)
    assert {
        name: found[name].get("trace_id") for name in ("finished", "published", "charged")
    } == dict.fromkeys(("finished", "published", "charged"), TRACE)


async def test_without_a_trace_there_is_no_word_of_one(clinic: Clinic, written: Written) -> None:
    headers = plain(await sent(clinic))
    assert [name for name in headers if "trace" in name] == []
    assert "trace_id" not in written.getvalue()


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", PARENT.upper())],
        [("traceparent", PARENT + "-more")],
        [("traceparent", f"ff-{TRACE}-00f067aa0ba902b7-01")],
        [("traceparent", f"00-{'0' * 32}-00f067aa0ba902b7-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", PARENT[:-1])],
        [("traceparent", "")],
        [("traceparent", PARENT), ("traceparent", PARENT)],
        [("tracestate", STATE)],
    ],
)
async def test_a_trace_that_is_not_valid_is_no_trace(clinic: Clinic, headers: list[tuple[str, str]]) -> None:
    assert [name for name in plain(await sent(clinic, *headers)) if "trace" in name] == []


@pytest.mark.parametrize(
    ("parent", "state", "expected"),
    [
        (f"cc-{PARENT[3:]}-what.the.future.brings", "", TraceContext(PARENT)),
        (f"01-{PARENT[3:]}", "", TraceContext(PARENT)),
        (PARENT, "a=1", TraceContext(PARENT, "a=1")),
        (PARENT, "a" * 512, TraceContext(PARENT, "a" * 512)),
        (PARENT, "a" * 513, TraceContext(PARENT)),
        (PARENT, "a=\n", TraceContext(PARENT)),
        (PARENT, "a=\xe9", TraceContext(PARENT)),
        (f"01-{PARENT[3:]}more", "", None),
        (f"{PARENT}\n", "", None),
    ],
)
def test_a_context_is_read_within_its_bounds(parent: str, state: str, expected: TraceContext | None) -> None:
    assert trace_context.parse(parent, state) == expected


async def test_states_that_come_in_parts_are_one(clinic: Clinic) -> None:
    parts = [("tracestate", "a=1"), ("tracestate", "b=2")]
    assert plain(await sent(clinic, ("traceparent", PARENT), *parts))["ce_tracestate"] == "a=1,b=2"


async def test_a_request_does_not_take_the_trace_of_the_one_before_it(clinic: Clinic) -> None:
    await sent(clinic, ("traceparent", PARENT))
    assert [name for name in plain(await sent(clinic)) if "trace" in name] == []


async def test_a_failure_names_the_trace_of_its_request_and_a_refusal_does_not(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.appointments.override(Object(UnreachableAppointments(clinic.clock, 3.0)))
    async with clinic.running():
        failed = await clinic.appointments.get("/", headers={"traceparent": PARENT})
        refused = await clinic.appointments.get("/?limit=0", headers={"traceparent": PARENT})
        without = await clinic.appointments.get("/")
    assert failed.status_code == 503
    assert failed.json()["trace_id"] == TRACE
    assert [set(problem(answer, status)) for answer, status in ((refused, 400), (without, 503))] == [
        {"type", "title", "status", "detail", "instance", "errors"},
        {"type", "title", "status", "detail", "instance"},
    ]


async def test_an_event_of_a_foreign_producer_has_the_trace_of_its_hop(
    clinic: Clinic, written: Written
) -> None:
    hop = ((f"{cloudevents.HOP}traceparent", PARENT),)
    await arrived(clinic, a_message(extensions=hop))
    await clinic.financial_telemetry.seen("charged")
    assert lines(written)["charged"]["trace_id"] == TRACE


async def test_what_cannot_be_charged_names_its_trace_too(clinic: Clinic, written: Written) -> None:
    kept = (("traceparent", PARENT),)
    await arrived(clinic, a_message(type="", extensions=kept))
    await clinic.financial_telemetry.seen("dead-lettered")
    assert lines(written)["dead-lettered"]["trace_id"] == TRACE


async def test_a_replay_names_the_trace_that_the_letter_came_from(clinic: Clinic, written: Written) -> None:
    message = a_message(extensions=(("traceparent", PARENT),))
    value = message.data or b""
    letter = a_letter(
        about=message.subject, headers=tuple(cloudevents.headers(message)), value=value, length=len(value)
    )
    await clinic.financial.dead_letters().add([letter])
    others = {"traceparent": f"00-{'1' * 32}-00f067aa0ba902b7-01", "authorization": f"Bearer {TOKEN}"}
    await clinic.charges.post("/dead-letters/replay/", json={"by": "anna", "all": True}, headers=others)
    assert lines(written)["charged"]["trace_id"] == TRACE
    assert lines(written)["replayed"]["trace_id"] == "1" * 32


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "clinic"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_ask_for_traces(environment: dict[str, str], expected: bool) -> None:
    assert tracing.is_asked_for(environment) is expected


def made() -> tracing.Tracing:
    return tracing.tracing_of("appointment", "sqlite", LoggingTelemetry("appointment"))


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
    ],
)
def test_what_is_asked_for_and_not_to_be_had_is_reported_and_ends_no_start(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, written: Written
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert type(made()) is tracing.Tracing
    assert lines(written)["no traces"]["level"] == "warning"
    assert "set otlp and http/protobuf" in lines(written)["no traces"]["reason"]


def test_without_the_extra_a_service_runs_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, written: Written
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(tracing, "SPANS", "clinic.entrypoints.not_installed:SpanTracing")
    assert type(made()) is tracing.Tracing
    assert "clinic[otel]" in lines(written)["no traces"]["reason"]
