"""Spans by OpenTelemetry: one picture from a request to its charge, and a watcher that holds nothing up."""

import asyncio
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dependency_injector.providers import Object
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from structlog.testing import capture_logs
from support import trace_picture
from support.apps import Clinic, UnreachableAppointments, WatchedTelemetry, client_of, settings
from support.collector import Collector, Span, collecting
from support.folders import a_folder
from support.ports import free_ports
from support.processes import eventually
from uuid_utils.compat import uuid7

from clinic.adapters import cloudevents
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.transport import MemoryPublisher
from clinic.domain.errors import Conflict, Refused, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult
from clinic.domain.financial.pricing import POLICIES, Pricing
from clinic.domain.messaging.messages import Message
from clinic.entrypoints import tracing
from clinic.entrypoints.otel.export import Export
from clinic.entrypoints.otel.guard import GuardedTracing
from clinic.entrypoints.service import Lifecycle
from clinic.entrypoints.technologies.memory import memory_log
from clinic.entrypoints.watcher.main import watcher
from clinic.entrypoints.watcher.standing import Plan
from clinic.testing.builders import TWO_O_CLOCK, a_letter, a_message, an_appointment, opened

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
TOKEN = "a token of thirty-two characters"  # noqa: S105 — of no other service than these tests'


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector
        for thread in ending():
            thread.join()


@pytest.fixture
def clinic(tmp_path: Path, collector: Collector) -> Clinic:
    assert collector
    return Clinic(settings("memory", tmp_path, operator_token=TOKEN))


async def finished(clinic: Clinic, parent: str = PARENT) -> str:
    its_id = await clinic.start()
    answer = await clinic.appointments.post(f"/{its_id}/", headers={"traceparent": parent})
    assert answer.is_success
    return its_id


async def arrived(clinic: Clinic, *messages: Message) -> None:
    await MemoryPublisher(memory_log(clinic.financial.shared()), clinic.clock).publish(messages)


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


async def test_a_batch_links_to_each_event_and_each_charge_is_in_its_own_trace(
    clinic: Clinic, collector: Collector
) -> None:
    traces = [f"{number:032x}" for number in range(1, 201)]
    kept = [(("traceparent", f"00-{trace}-00f067aa0ba902b7-01"),) for trace in traces]
    messages = [a_message(extensions=extensions) for extensions in kept]
    await arrived(clinic, *messages)
    async with clinic.running():
        await clinic.financial_telemetry.seen("charged", times=200)
    spans = collector.spans
    for name in ("receive", "process"):
        (batch,) = named(spans, name)
        assert [linked for linked, _ in batch.links] == traces, name
        assert batch.attributes["messaging.batch.message_count"] == "200"
    assert [span.trace_id for span in named(spans, "charge")] == traces
    assert {span.parent_id for span in named(spans, "charge")} == {"00f067aa0ba902b7"}
    assert {span.attributes["clinic.outcome"] for span in named(spans, "charge")} == {"charged"}


class Policy:
    """It refuses until it is mended."""

    is_mended = False

    def __call__(self, seconds: int) -> int:
        if not self.is_mended:
            raise Refused("the policy cannot say", code="amount-invalid")
        return POLICIES["hours-begun"].billed(seconds)


async def test_a_replayed_dead_letter_is_charged_in_the_trace_it_came_from(
    clinic: Clinic, collector: Collector
) -> None:
    policy = Policy()
    clinic.financial.policy.override(Object(Pricing("hours-begun", policy)))
    async with clinic.running():
        await finished(clinic)
        await clinic.financial_telemetry.seen("dead-lettered")
        policy.is_mended = True
        answer = await clinic.charges.post(
            "/dead-letters/replay/",
            json={"by": "anna", "all": True},
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        assert [each["outcome"] for each in answer.json()["items"]] == ["charged"]
    spans = collector.spans
    (request,) = named(spans, "POST /dead-letters/replay")
    (create,) = [span for span in named(spans, "create") if span.trace_id == TRACE]
    (letter,) = named(spans, "dead-letter")
    (charge,) = named(spans, "charge")
    assert (letter.context[0], letter.parent_id, letter.failed) == (TRACE, create.span_id, True)
    assert (charge.context[0], charge.parent_id, charge.failed) == (TRACE, create.span_id, False)
    (process,) = [span for span in spans if span.context == charge.links[0]]
    assert (process.name, process.trace_id, process.parent_id) == ("process", *request.context)
    assert process.links == [create.context]


def test_a_letter_that_a_command_replays_is_charged_in_the_trace_it_came_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    collector: Collector,
) -> None:
    message = a_message(extensions=(("traceparent", PARENT),))
    value = message.data or b""
    headers = tuple(cloudevents.headers(message))
    letter = a_letter(about=message.subject, headers=headers, value=value, length=len(value))
    with a_folder(tmp_path, monkeypatch, capsys) as folder:
        folder.run(lambda _, financial: financial.dead_letters().add([letter]))
        assert "charged" in folder.command("dead-letters", "replay", letter.position, "--by", "anna")
    (charge,) = named(collector.spans, "charge")
    assert (charge.trace_id, charge.parent_id) == tuple(PARENT.split("-")[1:3])


async def test_an_event_delivered_again_stays_in_its_trace(clinic: Clinic, collector: Collector) -> None:
    async with clinic.running():
        await finished(clinic)
        await clinic.financial_telemetry.seen("charged")
        (_, message) = memory_log(clinic.financial.shared()).entries[-1]
        await arrived(clinic, message)
        await clinic.financial_telemetry.seen("already charged")
    charges = named(collector.spans, "charge")
    assert [span.attributes["clinic.outcome"] for span in charges] == ["charged", "already charged"]
    assert len({(span.trace_id, span.parent_id) for span in charges}) == 1


async def test_the_hop_has_the_context_of_its_send(clinic: Clinic, collector: Collector) -> None:
    async with clinic.running():
        await finished(clinic)
        await clinic.appointment_telemetry.seen("published")
        (_, message) = memory_log(clinic.financial.shared()).entries[-1]
    extensions = dict(message.extensions)
    (create,) = named(collector.spans, "create")
    (send,) = named(collector.spans, "send")
    assert extensions["traceparent"].startswith(f"00-{create.trace_id}-{create.span_id}-")
    assert extensions["hop.traceparent"].startswith(f"00-{send.trace_id}-{send.span_id}-")
    assert create.trace_id == TRACE
    assert send.links == [create.context]


async def test_a_trace_that_its_caller_does_not_sample_is_passed_on_unsampled(
    clinic: Clinic, collector: Collector
) -> None:
    async with clinic.running():
        await finished(clinic, UNSAMPLED)
        await clinic.financial_telemetry.seen("charged")
        (_, message) = memory_log(clinic.financial.shared()).entries[-1]
    assert dict(message.extensions)["traceparent"].startswith(f"00-{TRACE}-")
    assert dict(message.extensions)["traceparent"].endswith("-00")
    assert [span.name for span in collector.spans if span.trace_id == TRACE] == []


async def test_a_request_that_fails_is_a_span_that_failed_and_probes_are_none(
    clinic: Clinic, collector: Collector
) -> None:
    clinic.appointment.appointments.override(Object(UnreachableAppointments(clinic.clock, 3.0)))
    async with clinic.running():
        answer = await clinic.appointments.get("/")
        for path in ("/health/ready", "/health/live", "/metrics"):
            await clinic.appointments.get(path)
        await clinic.appointments.request("BREW", "/nowhere/" + "x" * 1000)
    failed, unmatched = collector.spans
    assert (failed.name, failed.failed, failed.trace_id) == ("GET /", True, answer.json()["trace_id"])
    assert (unmatched.name, unmatched.failed) == ("other unmatched", False)
    assert len(unmatched.attributes["url.path"]) == 200


class Away(MemoryCharges):
    """It does not answer the first time."""

    has_failed = False

    async def add(self, charges: Sequence[Charge]) -> AddResult:
        if not self.has_failed:
            self.has_failed = True
            raise Unavailable("the charges do not answer")
        return await super().add(charges)


async def test_charging_that_has_to_wait_is_a_failed_span_and_no_charge(
    clinic: Clinic, collector: Collector
) -> None:
    clinic.financial.charges.override(Object(Away()))
    async with clinic.running():
        await finished(clinic)
        await clinic.financial_telemetry.seen("charged")
    first, second = named(collector.spans, "process")
    assert (first.failed, first.attributes["error.type"], second.failed) == (True, "Unavailable", False)
    assert len(named(collector.spans, "charge")) == 1


async def test_an_event_that_somebody_saved_first_is_a_failed_span(
    clinic: Clinic, collector: Collector
) -> None:
    async with clinic.running():
        appointments = clinic.appointment.traced_appointments()
        its_id = UUID(await clinic.start())
        read = await appointments.get(its_id)
        await appointments.save(read, a_message(subject=str(its_id)))
        with pytest.raises(Conflict):
            await appointments.save(read, a_message(subject=str(its_id)))
    assert [span.failed for span in named(collector.spans, "create")] == [False, True]


async def test_the_variables_name_the_service_before_we_do(
    clinic: Clinic, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with clinic.running():
        await clinic.start()
    assert [span.service for span in collector.spans] == ["clinic-appointment"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-desk")
    assert isinstance(tracing.tracing_of("appointment", "memory", WatchedTelemetry("other")), GuardedTracing)
    other = Clinic(clinic.appointment.settings())
    async with other.running():
        await other.start()
    assert collector.spans[-1].service == "front-desk"


def ending() -> list[threading.Thread]:
    """The threads in which an SDK shuts down."""
    return [thread for thread in threading.enumerate() if thread.name == "otel-end"]


@pytest.fixture
def silent() -> Iterator[str]:
    """A collector that takes connections and never answers. No thread is left waiting for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    for thread in ending():
        thread.join()


async def test_a_silent_collector_holds_nothing_up_and_not_the_end_either(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    clinic = Clinic(settings("memory", tmp_path))
    async with clinic.running():
        assert (await clinic.charged(await finished(clinic))).is_success
    assert ending(), "the service waited until the SDK had given up"


async def test_a_collector_that_refuses_is_reported_once_and_what_is_lost_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.05")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    telemetry = WatchedTelemetry("appointment")
    its = tracing.tracing_of("appointment", "memory", telemetry)

    async def is_reported() -> bool:
        return telemetry.times("traces are lost") > 0

    async with its.lifespan():
        for _ in range(3):
            its.end_request(its.begin_request("GET", "/", []), "/", "GET", 200)
            await eventually(is_reported)
    value = telemetry.registry.get_sample_value
    assert (value("clinic_spans_ended_total"), value("clinic_spans_exported_total")) == (3, 0)
    assert telemetry.times("traces are lost") == 1


class Broken:
    """Whatever it is of OpenTelemetry's, and of what it makes: each call of one method raises."""

    def __init__(self, its: Any, method: str) -> None:
        self._its, self._method = its, method

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            raise RuntimeError(f"{name} is broken")
        found = getattr(self._its, name)
        return (lambda *args: Broken(found(*args), self._method)) if name == "start_span" else found


SPAN = ("get_span_context", "end", "set_attribute", "set_attributes", "set_status", "update_name")


def exporters() -> set[threading.Thread]:
    """The threads in which spans are sent."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("OtelBatch")}


async def test_the_standing_audit_exports_what_all_its_rounds_repair_as_one_service(
    tmp_path: Path, collector: Collector
) -> None:
    its, before = settings("sqlite", tmp_path), exporters()
    clinic = Clinic(its)
    async with opened(clinic.appointment.store().resource), opened(clinic.financial.store().resource):
        telemetry = WatchedTelemetry("audit")
        plan = Plan(every=0.05, grace=timedelta(seconds=60), repairs=10, wait=0.05)
        async with client_of(watcher(its, plan, telemetry, Lifecycle(telemetry))):
            exporting = set[threading.Thread]()
            for number in (1, 2):
                made = an_appointment(id=uuid7(), end=TWO_O_CLOCK)
                await clinic.appointment.appointments().add(made)
                await telemetry.seen("audit repairs", times=number)
                exporting |= exporters() - before
    assert len(exporting) == 1
    assert [(span.service, span.name) for span in collector.spans] == [("clinic-audit", "create")] * 2


async def test_spans_that_cannot_be_written_down_are_reported_as_lost(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OTLPSpanExporter, "export", Broken(None, "export").__getattr__)
    telemetry = WatchedTelemetry("appointment")
    its = tracing.tracing_of("appointment", "memory", telemetry)
    async with its.lifespan():
        its.end_request(its.begin_request("GET", "/", []), "/", "GET", 200)
    assert collector.spans == []
    assert telemetry.times("traces are lost") == 1


@pytest.fixture(params=["start_span", *SPAN])
def broken(
    request: pytest.FixtureRequest, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    assert collector
    tracer = Export.tracer.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Export, "tracer", property(lambda self: Broken(tracer(self), request.param)))
    with capture_logs():  # to draw a traceback takes a second
        yield


def test_every_moment_of_a_trace_is_guarded() -> None:
    moments = {name for name in vars(tracing.Tracing) if not name.startswith("_")} - {"lifespan"}
    assert moments - vars(GuardedTracing).keys() == set()


@pytest.mark.usefixtures("broken")
async def test_an_error_of_opentelemetry_costs_spans_and_nothing_else(clinic: Clinic) -> None:
    clinic.financial.charges.override(Object(Away()))
    async with clinic.running():
        charged = await clinic.charged(await finished(clinic))
        await arrived(clinic, a_message(data=b"{}"))
        await clinic.financial_telemetry.seen("dead-lettered")
        assert len((await clinic.charges.get("/")).json()["items"]) == 1
    assert charged.is_success
    both = (clinic.appointment_telemetry, clinic.financial_telemetry)
    once = dict.fromkeys(("finished", "published", "consumer waits", "charged", "dead-lettered"), 1)
    assert {event: sum(each.times(event) for each in both) for event in once} == once
    registries = [each.registry for each in both]
    failures = [each.get_sample_value("clinic_spans_failed_total") or 0 for each in registries]
    spans_fail = {"event": "spans fail"}
    told = [each.get_sample_value("clinic_events_total", spans_fail) or 0 for each in registries]
    assert sum(failures) > 0
    assert told == [min(1, count) for count in failures]


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("error", [Conflict("somebody saved first"), asyncio.CancelledError()], ids=repr)
def test_the_error_of_what_is_traced_is_its_callers_whatever_fails_beside_it(error: BaseException) -> None:
    its = tracing.tracing_of("appointment", "memory", WatchedTelemetry("appointment"))
    message = a_message()
    for around in (its.creating([message]), its.sending([message], {}), its.charging([])):
        with pytest.raises(type(error)) as raised, around:
            raise error
        assert raised.value is error


def test_the_trace_in_the_documentation_is_the_one_that_is_kept() -> None:
    picture = trace_picture.drawn(trace_picture.kept(), TRACE)
    page = trace_picture.PAGE.read_text()
    drawn = re.search(r"^```\n(trace .*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert drawn
    if os.environ.get("CLINIC_TEST_REWRITE"):
        trace_picture.PAGE.write_text(page.replace(drawn[0], f"```\n{picture}\n```"))
    assert drawn[1] == picture
