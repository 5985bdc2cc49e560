"""What /metrics shows: an event's way, what waits, and nothing that a client can make grow."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints
from uuid import uuid4

import pytest
from dependency_injector.providers import Object
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.apps import Clinic, settings
from support.processes import eventually

import clinic
from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryPublisher
from clinic.domain.errors import Unavailable
from clinic.domain.financial.use_cases import Charged
from clinic.domain.messaging.dead_letters import HistoryEntry
from clinic.domain.messaging.messages import Message, PublishResult
from clinic.entrypoints import metrics
from clinic.entrypoints.measured import MeasuredOutbox
from clinic.entrypoints.technologies.memory import memory_log
from clinic.testing.builders import ONE_O_CLOCK, StandingClock, StandingMonotonic, a_message, now
from clinic.testing.outbox import saved

SOURCE = Path(clinic.__file__).parent
FOREIGN = 1000
LEASE = 3.0

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def shown(client: Any) -> Series:
    """Every series of the service, with its value."""
    page = (await client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def value(client: Any, name: str, **labels: str) -> float | None:
    return (await shown(client)).get((name, frozenset(labels.items())))


async def becomes(client: Any, wanted: float, name: str, **labels: str) -> None:
    """Return once the series has that value: it may be counted after what is noticed."""

    async def has_it() -> bool:
        return await value(client, name, **labels) == wanted

    await eventually(has_it)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        yield clinic


async def arrived(clinic: Clinic, *messages: Message) -> None:
    """These messages are in the log."""
    log = memory_log(clinic.financial.shared())
    await MemoryPublisher(log, clinic.clock).publish(messages)


async def handled(clinic: Clinic, recorded: str | None) -> None:
    """A finish that was recorded then is charged."""
    count = "clinic_handling_duration_seconds_count"
    before = await value(clinic.charges, count) or 0
    extensions = () if recorded is None else (("recordedtime", recorded),)
    await arrived(clinic, a_message(extensions=extensions))
    await becomes(clinic.charges, before + 1, count)


def ago(clinic: Clinic, seconds: float) -> str:
    return (clinic.clock() - timedelta(seconds=seconds)).isoformat()


async def test_the_time_to_charge_begins_when_the_finish_was_saved(running: Clinic) -> None:
    for seconds in (0.04, 7, 200):
        await handled(running, ago(running, seconds))
    found = [
        await value(running.charges, "clinic_time_to_charge_seconds_bucket", le=le)
        for le in ("0.025", "0.05", "5.0", "10.0", "60.0", "300.0", "+Inf")
    ]
    assert found == [0, 1, 1, 2, 2, 3, 3]
    assert await value(running.charges, "clinic_time_to_charge_seconds_sum") == pytest.approx(207.04)


@pytest.mark.parametrize("recorded", [None, "", "yesterday", "2020-12-01T13:00:00", "9" * 40])
async def test_a_foreign_finish_that_does_not_say_when_it_was_saved_is_not_timed(
    running: Clinic, recorded: str | None
) -> None:
    await handled(running, recorded)
    assert await value(running.charges, "clinic_time_to_charge_seconds_count") == 0
    assert await value(running.charges, "clinic_handling_duration_seconds_count") == 1


async def test_a_clock_that_is_ahead_makes_no_negative_time(running: Clinic) -> None:
    await handled(running, ago(running, -3600))
    assert await value(running.charges, "clinic_time_to_charge_seconds_bucket", le="0.01") == 1
    assert await value(running.charges, "clinic_time_to_charge_seconds_sum") == 0


async def test_a_duplicate_is_not_timed_again(running: Clinic) -> None:
    message = a_message(extensions=(("recordedtime", ONE_O_CLOCK.isoformat()),))
    await arrived(running, message)
    await running.financial_telemetry.seen("charged")
    await arrived(running, message)
    await becomes(running.charges, 2, "clinic_handling_duration_seconds_count")
    assert await value(running.charges, "clinic_time_to_charge_seconds_count") == 1
    assert await value(running.charges, "clinic_events_total", event="already charged") == 1


async def test_an_event_is_measured_on_its_whole_way(running: Clinic) -> None:
    its_id = await running.start()
    await running.finish(its_id)
    await running.charged(its_id)
    await running.appointment_telemetry.seen("published")
    await becomes(running.charges, 1, "clinic_handling_duration_seconds_count")
    appointments, charges = await shown(running.appointments), await shown(running.charges)
    for name in ("clinic_publish_duration_seconds", "clinic_publish_batch_size"):
        assert appointments[f"{name}_count", frozenset()] == 1
    for name in ("clinic_time_to_charge_seconds", "clinic_consumer_batch_size"):
        assert charges[f"{name}_count", frozenset()] == 1
    assert appointments["clinic_outbox_unpublished", frozenset()] == 0
    assert charges["clinic_dead_letters", frozenset({("state", "waiting")})] == 0
    finish = {"route": "/{appointment_id}", "method": "POST", "status": "2xx"}
    assert appointments["clinic_http_request_duration_seconds_count", frozenset(finish.items())] == 1


async def test_what_waits_to_be_published_is_counted_and_its_age_known(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))

    class Away(MemoryPublisher):
        async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
            raise Unavailable(f"{len(batch)} events cannot leave")

    clinic.appointment.publisher.override(Object(Away(memory_log(clinic.appointment.shared()), clinic.clock)))
    async with clinic.running():
        for _ in range(3):
            await clinic.finish(await clinic.start())
        await clinic.appointment_telemetry.seen("relay waits")
        clinic.clock.move(seconds=42)
        found = await shown(clinic.appointments)
    assert found["clinic_outbox_oldest_seconds", frozenset()] == 42
    assert found["clinic_outbox_unpublished", frozenset()] == 3
    assert found["clinic_outbox_unpublished_more", frozenset()] == 0
    assert found["clinic_relay_retries_total", frozenset({("cause", "publish")})] >= 1


async def test_a_backlog_beyond_the_count_is_said_to_be_more(running: Clinic) -> None:
    class Long(MemoryAppointments):
        async def count(self, limit: int) -> int:
            return limit

    outbox = Long(running.clock, 3.0)
    _, count, more = await metrics.backlog(outbox, running.clock)
    assert [family.samples[0].value for family in (count, more)] == [metrics.MAX_COUNTED, 1]


async def test_an_event_that_is_claimed_late_is_counted() -> None:
    clock, page = StandingClock(), metrics.AppointmentMetrics(CollectorRegistry(), now)
    store = MemoryAppointments(clock, LEASE, StandingMonotonic())
    outbox = MeasuredOutbox(store, page, clock, LEASE)
    for seconds in (LEASE, LEASE + 1):
        await saved(store)
        clock.move(seconds=seconds)
        await outbox.claim(1)
    assert b"\nclinic_late_claims_total 1.0" in await page.scrape()


async def test_a_dead_letter_is_counted_by_its_code_without_the_field(running: Clinic) -> None:
    await arrived(running, a_message(data=b"{}"), a_message(type=""))
    await becomes(running.charges, 2, "clinic_dead_letters", state="waiting")
    await running.financial_telemetry.seen("dead-lettered", 2)
    for code in ("data-incomplete", "type-missing"):
        assert await value(running.charges, "clinic_dead_lettered_total", code=code) == 1


async def test_who_waits_for_a_charge_is_counted(running: Clinic) -> None:
    waiting = asyncio.create_task(running.charges.get(f"/{uuid4()}/", headers={"Prefer": "wait=30"}))
    await becomes(running.charges, 1, "clinic_charge_waiters")
    running.financial_lifecycle.stop()
    await waiting
    assert await value(running.charges, "clinic_charge_waiters") == 0


@pytest.mark.parametrize("failure", ["hangs", "fails"])
async def test_a_scrape_of_a_silent_store_answers_in_time_with_the_rest(
    tmp_path: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "ASK_TIMEOUT", 0.05)
    clinic = Clinic(settings("memory", tmp_path))
    asked = 0

    class Silent(MemoryDeadLetters):
        async def groups(self) -> Any:
            nonlocal asked
            asked += 1
            if failure == "hangs":
                await asyncio.Event().wait()
            raise Unavailable("nobody is there")

    clinic.financial.dead_letters.override(Object(Silent()))
    async with clinic.running():
        found = [await shown(clinic.charges) for _ in range(3)][-1]
        answered = "clinic_scrape_answered"
        assert found[answered, frozenset({("question", "dead letters")})] == 0
        assert found[answered, frozenset({("question", "lag")})] == 1
        assert not any(name == "clinic_dead_letters" for name, _ in found)
        assert found["clinic_consumer_lag_seconds", frozenset()] == 0
        assert asked == (1 if failure == "hangs" else 3)


async def test_a_question_that_is_answered_late_is_shown_by_a_later_scrape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "ASK_TIMEOUT", 0.01)
    page = metrics.Metrics(CollectorRegistry(), lambda: ONE_O_CLOCK)
    ready = asyncio.Event()

    async def late() -> metrics.Answer:
        await ready.wait()
        return [GaugeMetricFamily("clinic_late", "Late.", 7)]

    page.questions["late"] = late
    assert b"clinic_late" not in await page.scrape()
    ready.set()
    assert b"\nclinic_late 7.0" in await page.scrape()


async def test_foreign_types_paths_and_events_make_no_series(running: Clinic) -> None:
    async def flood(numbers: range) -> tuple[int, int]:
        for number in numbers:
            client = running.charges if number % 2 else running.appointments
            await client.get((f"/foreign/{number}", f"/{uuid4()}/", f"/{number}")[number % 3])
            running.financial_telemetry(f"foreign {number}")
        foreign = [a_message(type=f"foreign.{number}") for number in numbers]
        unknown = [a_message(type=f"clinic.appointment.finished.v{number + 2}") for number in numbers]
        broken = [a_message(data=f'{{"foreign-{number}": 1}}'.encode()) for number in numbers[::10]]
        timed = [a_message(extensions=(("recordedtime", f"{number}"),)) for number in numbers[::10]]
        await arrived(running, *foreign, *unknown, *broken, *timed)
        await running.financial_telemetry.seen("skipped", numbers.stop)
        return len(await shown(running.appointments)), len(await shown(running.charges))

    await flood(range(6))
    before = await flood(range(6, 12))
    assert await flood(range(12, FOREIGN)) == before
    assert await value(running.charges, "clinic_events_total", event="other") == FOREIGN


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/health/live", ("/health/live", "GET", "2xx")),
        ("HEAD", "/health/live", ("/health/live", "HEAD", "2xx")),
        ("OPTIONS", "/", ("unmatched", "OPTIONS", "2xx")),
        ("PUT", "/", ("unmatched", "PUT", "4xx")),
        ("BREW", "/", ("unmatched", "other", "4xx")),
        ("GET", "/?no=such", ("/", "GET", "4xx")),
        ("GET", "/docs/files/swagger-ui-dist/favicon-32x32.png", ("/docs/files/{file_path}", "GET", "2xx")),
    ],
)
async def test_a_request_is_counted_by_its_route(
    running: Clinic, method: str, path: str, labels: tuple[str, str, str]
) -> None:
    await running.appointments.request(method, path)
    named = dict(zip(("route", "method", "status"), labels, strict=True))
    assert await value(running.appointments, "clinic_http_request_duration_seconds_count", **named) == 1


def told() -> set[str]:
    """Each text that begins a call of something named like telemetry, or of `fail` and `failed`."""
    call = re.compile(r'\b_?(?:telemetry|fail|failed)\(\s*"([^"]+)"')
    return {event for file in SOURCE.rglob("*.py") for event in call.findall(file.read_text())}


def test_every_event_that_the_program_tells_is_known_and_explained() -> None:
    assert {"finished", "published", "dead-lettered", "unforeseen"} <= told()
    entries = get_args(get_type_hints(HistoryEntry)["event"])
    outcomes = get_args(get_type_hints(Charged)["outcome"])
    assert {*told(), *entries, *outcomes} == metrics.EVENTS.keys()


def test_every_code_of_a_message_that_cannot_be_read_is_known() -> None:
    source = (SOURCE / "domain" / "events.py").read_text() + (SOURCE / "domain" / "money.py").read_text()
    codes = {code.partition(":")[0] for code in re.findall(r'(?:code=|return )f?"([a-z][a-z-]+)', source)}
    assert {"type-missing", "amount-invalid", "data-incomplete", "data-unreadable"} <= codes
    assert codes <= set(metrics.CODES)


def test_our_histogram_says_the_same_as_the_librarys() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = metrics.Histogram("seconds", "Some.", (0.1, 1, 10), ("a",), ours)
    its = Histogram("seconds", "Some.", ["a"], buckets=(0.1, 1, 10), registry=theirs)
    for number in (0, 0.1, 0.11, 1, 9.5, 10, 11, 0.1):
        mine.observe(number, ("x",))
        its.labels("x").observe(number)
    created = re.compile(rb"^.*_created.*\n", re.MULTILINE)
    assert sorted(generate_latest(ours).splitlines()) == sorted(
        created.sub(b"", generate_latest(theirs)).splitlines()
    )
