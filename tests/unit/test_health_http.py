"""What the services say of themselves: alive, ready, and how often what happened."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dependency_injector.providers import Object
from support.apps import Clinic, UnreachableAppointments, UnreachableCharges, settings

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryPublisher
from clinic.domain.errors import Refused, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.messaging.dead_letters import DeadLetterFilter
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublishResult
from clinic.entrypoints.technologies.memory import memory_log
from clinic.entrypoints.web.app import MAX_AGE
from clinic.testing.builders import a_history_entry, a_letter, an_event


@pytest.fixture(params=["memory", "sqlite"])
async def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings(request.param, tmp_path)).running() as clinic:
        yield clinic


class Closed(MemoryPublisher):
    """Publishes nothing, for the reason that it is given, until it is told to."""

    def __init__(self, clinic: Clinic, reason: Exception) -> None:
        super().__init__(memory_log(clinic.appointment.shared()), clinic.clock)
        self._reason = reason
        self.open = False

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        if self.open:
            return await super().publish(batch)
        raise self._reason


async def test_both_services_are_alive_and_ready_with_and_without_the_slash(clinic: Clinic) -> None:
    for client, loop in ((clinic.appointments, "relay"), (clinic.charges, "consumer")):
        for slash in ("", "/"):
            assert (await client.get(f"/health/live{slash}")).json() == {"status": "alive"}
            ready = await client.get(f"/health/ready{slash}")
            assert (ready.status_code, ready.json()) == (
                200,
                {"status": "ready", "checks": {"store": "ok", loop: "ok"}},
            )


async def test_without_its_transport_the_service_is_degraded_and_answers_finishes(
    tmp_path: Path,
) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    closed = Closed(clinic, Unavailable("the transport does not answer"))
    clinic.appointment.publisher.override(Object(closed))
    async with clinic.running():
        its_id = await clinic.start()
        assert (await clinic.finish(its_id)).status_code == 200
        await clinic.appointment_telemetry.seen("relay waits")
        ready = await clinic.appointments.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"] == {"store": "ok", "relay": "the transport does not answer"}
        assert ready.json()["oldest_unpublished_seconds"] >= 0
        assert (await clinic.finish(await clinic.start())).status_code == 200
        closed.open = True
        assert (await clinic.charged(its_id)).status_code == 200


async def test_an_event_that_cannot_be_published_is_named_while_the_others_go_on(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    culprit: list[str] = []

    class Picky(MemoryPublisher):
        async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
            if any(message.subject in culprit for message in batch):
                raise Refused("it is too large")
            return await super().publish(batch)

    clinic.appointment.publisher.override(
        Object(Picky(memory_log(clinic.appointment.shared()), clinic.clock))
    )
    async with clinic.running():
        culprit.append(await clinic.start())
        await clinic.finish(culprit[0])
        other = await clinic.start()
        await clinic.finish(other)
        assert (await clinic.charged(other)).status_code == 200
        await clinic.appointment_telemetry.seen("cannot be published")
        ready = await clinic.appointments.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert "it is too large" in ready.json()["checks"]["relay"]
        assert (await clinic.charges.get(f"/{culprit[0]}/")).status_code == 404


async def test_without_its_store_a_service_is_alive_but_not_ready(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.appointments.override(Object(UnreachableAppointments(clinic.clock, 3.0)))
    clinic.financial.charges.override(Object(UnreachableCharges()))
    async with clinic.running():
        for client, store in (
            (clinic.appointments, "the appointments do not answer"),
            (clinic.charges, "the charges do not answer"),
        ):
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "unready")
            assert ready.json()["checks"]["store"] == store
            assert (await client.get("/health/live")).status_code == 200


async def test_a_problem_of_the_consumer_is_degraded_and_charges_are_shown(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))

    class ReadOnlyCharges(MemoryCharges):
        async def add(self, charges: Sequence[Charge]) -> Any:
            raise Unavailable(f"the charges take nothing, not even {len(charges)}")

    clinic.financial.charges.override(Object(ReadOnlyCharges()))
    async with clinic.running():
        await clinic.finish(await clinic.start())
        await clinic.financial_telemetry.seen("consumer waits")
        ready = await clinic.charges.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"] == {"store": "ok", "consumer": "the charges take nothing, not even 1"}
        assert (await clinic.charges.get("/")).status_code == 200


async def test_an_outbox_that_cannot_be_read_is_a_problem_of_the_relay(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))

    class Stuck(MemoryAppointments):
        async def claim(self, limit: int) -> Sequence[ClaimedMessage]:
            raise Unavailable(f"the outbox does not hand over {limit}")

    clinic.appointment.outbox.override(Object(Stuck(clinic.clock, 3.0)))
    async with clinic.running():
        await clinic.appointment_telemetry.seen("relay waits")
        assert (await clinic.appointments.get("/health/ready")).json()["status"] == "degraded"


async def test_metrics_count_what_has_happened(clinic: Clinic) -> None:
    for _ in range(3):
        its_id = await clinic.start()
        await clinic.finish(its_id)
        await clinic.charged(its_id)
    await clinic.appointment_telemetry.seen("published", 3)  # at times later than it is received
    for client, what in ((clinic.appointments, "published"), (clinic.charges, "charged")):
        for slash in ("", "/"):
            answer = await client.get(f"/metrics{slash}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/plain")
            assert re.findall(
                rf'^clinic_events_total{{event="{what}"}} (.*)$', answer.text, re.MULTILINE
            ) == ["3.0"]


async def test_a_loop_that_is_over_makes_the_service_unready_whatever_it_said_last(clinic: Clinic) -> None:
    for client, lifecycle, loop in (
        (clinic.appointments, clinic.appointment_lifecycle, "relay"),
        (clinic.charges, clinic.financial_lifecycle, "consumer"),
    ):
        for task in asyncio.all_tasks():
            if "Relay.run" in repr(task) or "Consumer.run" in repr(task):
                task.cancel()
        await lifecycle.stopped()
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        assert ready.json()["checks"] == {"store": "ok", loop: "the loop behind the service has ended"}


@pytest.mark.parametrize("failure", ["slow", "unavailable"])
async def test_the_age_of_the_oldest_event_never_decides(
    tmp_path: Path, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.entrypoints.web.app.DETAIL_TIMEOUT", 0.05)
    clinic = Clinic(settings("memory", tmp_path))

    class Ageless(MemoryAppointments):
        async def oldest(self) -> datetime | None:
            if failure == "slow":
                await asyncio.Event().wait()
            raise Unavailable("planner returned error: bad hint")

    clinic.appointment.appointments.override(Object(Ageless(clinic.clock, 3.0)))
    async with clinic.running():
        ready = await clinic.appointments.get("/health/ready")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "checks": {"store": "ok", "relay": "ok"}},
    )


async def test_an_event_that_waits_while_the_relay_has_no_problem_is_shown(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))

    age = timedelta(seconds=MAX_AGE)

    class Forgetful(MemoryAppointments):
        async def claim(self, limit: int) -> Sequence[ClaimedMessage]:  # noqa: ARG002 — it hangs
            return await asyncio.Future()

        async def oldest(self) -> datetime | None:
            return clinic.clock.moment - age

    store = Forgetful(clinic.clock, 3.0)
    clinic.appointment.appointments.override(Object(store))
    clinic.appointment.outbox.override(Object(store))
    async with clinic.running():
        assert (await clinic.appointments.get("/health/ready")).json()["status"] == "ready"
        age += timedelta(seconds=1)
        ready = await clinic.appointments.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["relay"] == "an event has waited for 31 s to be published"


async def test_a_finish_that_is_dead_lettered_is_shown_until_it_is_replayed(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    letters = clinic.financial.dead_letters()
    async with clinic.running():
        await letters.add([a_letter(position=f"log/{number:03}") for number in range(45)])
        assert (await clinic.charges.get("/health/ready")).json()["status"] == "ready"  # not ours
        event = an_event()
        ours = a_letter(position="log/100", about=str(event.appointment_id), message_id=str(event.id))
        await letters.add([ours])
        ready = await clinic.charges.get("/health/ready")
        assert (ready.status_code, ready.json()) == (
            200,
            {
                "status": "degraded",
                "checks": {
                    "store": "ok",
                    "consumer": "ok",
                    "dead_letters": f"finishes that are dead-lettered: 1, among them of {ours.about}",
                },
            },
        )
        await letters.record(ours, a_history_entry())
        assert (await clinic.charges.get("/health/ready")).json()["status"] == "ready"
        await letters.add([a_letter(position=f"log/{number}") for number in range(200, 700)])
        assert (await clinic.charges.get("/health/ready")).json()["checks"]["dead_letters"] == (
            "too many to look for finishes among them: 500+"
        )


@pytest.mark.parametrize("failure", [None, Unavailable("no"), ValueError("what is this?")])
async def test_where_dead_letters_cannot_be_looked_at_the_service_is_degraded(
    tmp_path: Path, failure: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinic.entrypoints.web.app.DETAIL_TIMEOUT", 0.05)
    clinic = Clinic(settings("memory", tmp_path))

    class Silent(MemoryDeadLetters):
        async def page(self, matching: DeadLetterFilter, limit: int, after: str = "") -> Any:
            if failure:
                raise failure
            return await asyncio.Future() or await super().page(matching, limit, after)

    clinic.financial.dead_letters.override(Object(Silent()))
    async with clinic.running():
        ready = await clinic.charges.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["checks"]["dead_letters"] == (
        f"whether finishes are dead-lettered is not known: {failure or 'no answer within 0.05 s'}"
    )


async def test_a_servers_whole_answer_is_not_shown(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    reason = "MongoDB does not answer: " + "{'$clusterTime': 1}" * 100 + "\nand more"
    closed = Closed(clinic, Unavailable(reason))
    clinic.appointment.publisher.override(Object(closed))
    async with clinic.running():
        await clinic.finish(await clinic.start())
        await clinic.appointment_telemetry.seen("relay waits")
        shown = (await clinic.appointments.get("/health/ready")).json()["checks"]["relay"]
    assert shown.startswith("MongoDB does not answer: {")
    assert len(shown) < 350
