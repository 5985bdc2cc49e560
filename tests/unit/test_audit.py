"""The audit and its repair, on the memory stores."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.appointment.use_cases import FindFinishedEvent, RepublishFinished
from clinic.domain.events import AppointmentFinished, event_id, from_message
from clinic.domain.financial.model import Charge
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.use_cases import ChargeAppointments
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter
from clinic.domain.messaging.messages import PublicationStatus, PublishResult, Received
from clinic.domain.money import Money
from clinic.domain.reconciliation.audit import CONCURRENCY, PAGE_SIZE, AuditCharges, FinishedAppointments
from clinic.domain.reconciliation.findings import Finding
from clinic.domain.reconciliation.repair import Repair, RepairCharges
from clinic.testing.builders import (
    TWO_O_CLOCK,
    RecordedTelemetry,
    StandingClock,
    a_history_entry,
    a_letter,
    an_appointment,
    an_origin,
    keep,
    running,
)

GRACE = timedelta(seconds=60)
LATER = TWO_O_CLOCK + timedelta(hours=1)
SHORT = 0.5
LONG = 600.0


class Finished(FinishedAppointments):
    """As `clinic audit` asks the appointment context."""

    def __init__(self, store: MemoryAppointments) -> None:
        self._store = store

    async def page(self, limit: int, after: UUID | None = None) -> Sequence[AppointmentFinished]:
        page = await self._store.page(AppointmentFilter(finished=True), limit, after)
        return [found.finished_event for found in page if found.finished_event]

    async def find(self, appointment_id: UUID) -> tuple[AppointmentFinished, PublicationStatus | None] | None:
        return await FindFinishedEvent(self._store, self._store)(appointment_id)

    async def republish(self, appointment_id: UUID) -> None:
        await RepublishFinished(self._store, self._store)(appointment_id)


class World:
    """Both contexts' stores, an hour after everything in them was published at two o'clock."""

    def __init__(self) -> None:
        self.clock = StandingClock(TWO_O_CLOCK)
        self.appointments = MemoryAppointments(self.clock, LONG)
        self.charges = MemoryCharges()
        self.letters = MemoryDeadLetters()

    async def finish(self, **changes: Any) -> Appointment:
        """An appointment from one to two o'clock, whose event is published."""
        finished = await self.finish_untold(**changes)
        for each in await self.appointments.claim(10):
            await self.appointments.confirm([PublishResult(each.message, "log/1", TWO_O_CLOCK)])
        return finished

    async def finish_untold(self, **changes: Any) -> Appointment:
        """The same, and nobody publishes its event."""
        await self.restore(restored := an_appointment(end=TWO_O_CLOCK, **changes))
        await self.finished.republish(restored.id)
        return restored

    async def restore(self, *appointments: Appointment) -> None:
        """As from a backup: without their events."""
        for each in appointments:
            await self.appointments.add(each)

    async def charge(self, *appointments: Appointment, policy: str = "hours-begun", **changes: Any) -> None:
        events = [each.finished_event for each in appointments]
        made = [
            Charge.for_finished(Received(event, an_origin()), POLICIES[policy], TWO_O_CLOCK)
            for event in events
            if event
        ]
        await self.charges.add([replace(each, **changes) for each in made])

    @property
    def finished(self) -> FinishedAppointments:
        return Finished(self.appointments)

    async def audit(
        self, grace: timedelta = GRACE, *, at_once: bool = False
    ) -> tuple[list[Finding], int, int]:
        """What is found, how many are compared, and how many of those are in flight."""
        self.clock.moment = TWO_O_CLOCK if at_once else LATER
        audit = AuditCharges(self.charges, self.letters, POLICIES["hours-begun"], self.clock)
        chunks = [each async for each in audit(self.finished, grace)]
        findings = [finding for each in chunks for finding in each.findings]
        return findings, sum(each.appointments for each in chunks), sum(each.in_flight for each in chunks)

    async def repair(self, within: float = SHORT) -> list[Repair]:
        """What becomes of everything that an audit finds."""
        findings, _, _ = await self.audit()
        pairs = [
            pair
            async for pair in RepairCharges(self.charges, self.letters)(
                in_one_chunk(findings), self.finished, within
            )
        ]
        assert [finding for finding, _ in pairs] == findings
        return [repair for _, repair in pairs]

    async def relay(self) -> None:
        """The appointment service: it publishes what is saved."""
        while True:
            for each in await self.appointments.claim(10):
                await self.appointments.confirm([PublishResult(each.message, "log/2", LATER)])

    async def services(self) -> None:
        """Both services: what is published is charged."""
        charge = ChargeAppointments(self.charges, POLICIES["hours-begun"], self.clock, RecordedTelemetry())
        while True:
            claimed = await self.appointments.claim(10)
            events = [event for each in claimed if (event := from_message(each.message))]
            await charge([Received(event, an_origin()) for event in events])
            await self.appointments.confirm([PublishResult(each.message, "log/2", LATER) for each in claimed])


@pytest.fixture
def world() -> World:
    return World()


def a_waiting_letter(about: Appointment, **changes: Any) -> Any:
    """Of its own event."""
    default = {"position": "log/1", "message_id": str(event_id(about.id)), "reason": "it is beyond all money"}
    return a_letter(about=str(about.id), **(default | changes))


async def in_one_chunk(findings: Sequence[Finding]) -> AsyncIterator[Sequence[Finding]]:
    yield findings


async def test_where_each_finished_appointment_has_its_charge_nothing_is_found(world: World) -> None:
    await world.charge(await world.finish(), await world.finish(price=Money("133.33")))
    await world.restore(an_appointment())
    assert await world.audit() == ([], 2, 0)


async def test_a_clinic_without_appointments_is_in_order(world: World) -> None:
    assert await world.audit() == ([], 0, 0)


async def test_a_finished_appointment_without_a_charge_is_missing(world: World) -> None:
    lost = await world.finish()
    ((finding,), compared, _) = await world.audit()
    assert (finding.kind, finding.appointment_id, finding.expected, finding.found) == (
        "missing",
        lost.id,
        Money("400.00"),
        None,
    )
    assert finding.remedy == "republish"
    assert (
        finding.explanation
        == "finished 2020-12-01 14:00:00, published 2020-12-01 14:00:00 at log/1, and not charged"
    )
    assert compared == 1


async def test_what_was_never_saved_to_the_outbox_is_missing(world: World) -> None:
    await world.restore(an_appointment(end=TWO_O_CLOCK))
    ((finding,), _, _) = await world.audit()
    assert finding.remedy == "republish"
    assert "never saved" in finding.explanation


async def test_what_waits_to_be_published_is_missing_and_needs_no_republishing(world: World) -> None:
    await world.finish_untold()
    ((finding,), _, _) = await world.audit()
    assert (finding.kind, finding.remedy) == ("missing", "publication")
    assert "since 2020-12-01 14:00:00" in finding.explanation


async def test_a_missing_one_that_a_dead_letter_is_about_is_named_with_the_command(world: World) -> None:
    await world.letters.add([a_waiting_letter(await world.finish())])
    ((finding,), _, _) = await world.audit()
    assert (finding.kind, finding.remedy) == ("missing", "replay")
    assert (
        finding.explanation
        == "dead-lettered: it is beyond all money; `clinic dead-letters replay log/1` tries again"
    )


async def test_a_missing_one_whose_own_event_was_discarded_stays_discarded(world: World) -> None:
    lost = await world.finish()
    assert lost.finished_event
    by_anna = a_history_entry(event="discarded", note="a test")
    own_id = str(lost.finished_event.id)
    await keep(world.letters, a_waiting_letter(lost, message_id=own_id, history=(by_anna,)))
    ((finding,), _, _) = await world.audit()
    assert finding.remedy == "replay"
    assert "discarded by anna: a test" in finding.explanation


@pytest.mark.parametrize(
    "changes",
    [{"message_id": "of another", "state": "discarded"}, {"state": "replayed"}],
    ids=["another's", "own"],
)
async def test_a_letter_that_is_done_with_stands_in_nobodys_way(
    world: World, changes: dict[str, Any]
) -> None:
    await world.letters.add([a_waiting_letter(await world.finish(), **changes)])
    ((finding,), _, _) = await world.audit()
    assert finding.remedy == "republish"


async def test_an_unrelated_letter_is_named_and_keeps_nothing_from_being_republished(world: World) -> None:
    lost = await world.finish()
    await world.letters.add([a_waiting_letter(lost, message_id="of another")])
    ((finding,), _, _) = await world.audit()
    assert finding.remedy == "republish"
    assert "the dead letter at log/1 is about it, too, and is not of its own event" in finding.explanation
    async with running(world.services()):
        (repair,) = await world.repair(within=LONG)
    assert repair.outcome == "charged"


@pytest.mark.parametrize("state", ["waiting", "discarded"])
async def test_its_own_letter_is_seen_behind_any_number_of_others(world: World, state: str) -> None:
    lost = await world.finish()
    others = [
        a_waiting_letter(lost, position=f"log/{number:03}", message_id=f"other {number}", state=state)
        for number in range(50)
    ]
    history = (a_history_entry(event="discarded"),) if state == "discarded" else ()
    own = a_waiting_letter(lost, position="log/9", state=state, history=history)
    await keep(world.letters, *others, own)
    ((finding,), _, _) = await world.audit()
    assert finding.remedy == "replay"
    assert "log/9" in finding.explanation


@pytest.mark.parametrize(
    "version",
    ["clinic.appointment.finished", "clinic.appointment.finished.v2", "clinic.appointment.finished.v9"],
)
async def test_its_own_event_in_a_version_that_is_not_known_here_waits_for_a_person(
    world: World, version: str
) -> None:
    lost = await world.finish()
    await world.letters.add([a_waiting_letter(lost, type=version)])
    ((finding,), _, _) = await world.audit()
    assert finding.remedy == "replay"


class ReplaysMeanwhile(MemoryDeadLetters):
    """Right before a list of letters comes, somebody has replayed the letter: the charge is there."""

    charge: Callable[[], Awaitable[None]]

    async def page(self, wanted: DeadLetterFilter, limit: int, after: str = "") -> Sequence[DeadLetter]:
        await self.charge()
        return await super().page(wanted, limit, after)


async def test_what_is_replayed_while_the_audit_reads_is_not_missing(world: World) -> None:
    world.letters = letters = ReplaysMeanwhile()
    lost = await world.finish()
    letters.charge = lambda: world.charge(lost)
    assert await world.audit(timedelta(0)) == ([], 1, 0)


async def test_a_charge_of_an_appointment_that_is_not_finished_or_not_known_is_orphaned(world: World) -> None:
    unfinished = an_appointment()
    await world.restore(unfinished)
    await world.charge(replace(unfinished, end=TWO_O_CLOCK), an_appointment(end=TWO_O_CLOCK))
    findings, compared, _ = await world.audit()
    assert [(each.kind, each.expected, each.found, each.remedy) for each in findings] == [
        ("orphaned", None, Money("400.00"), "a person")
    ] * 2
    assert compared == 2


@pytest.mark.parametrize(
    ("changes", "explanation"),
    [
        ({"total": Money("399.99")}, "the charge says total 399.99 instead of 400.00"),
        ({"price": Money("100.00")}, "the charge says price 100.00 instead of 200.00"),
        ({"end": LATER}, "the charge says end 2020-12-01 15:00:00 instead of 2020-12-01 14:00:00"),
        ({"start": TWO_O_CLOCK}, "the charge says start 2020-12-01 14:00:00 instead of 2020-12-01 13:00:00"),
        ({"pricing": "whole-hours"}, "the charge says hours 2 instead of 1, total 400.00 instead of 200.00"),
        (
            {"pricing": "by-the-moon"},
            "its policy 'by-the-moon' is none of hours-begun, whole-hours, pro-rata",
        ),
    ],
    ids=["total", "price", "end", "start", "another policy", "an unknown policy"],
)
async def test_a_charge_that_is_not_what_its_policy_makes_of_the_appointment_is_wrong(
    world: World, changes: dict[str, Any], explanation: str
) -> None:
    await world.charge(await world.finish(), **changes)
    ((finding,), _, _) = await world.audit()
    assert (finding.kind, finding.remedy, finding.explanation) == ("wrong", "a person", explanation)
    assert finding.found == changes.get("total", Money("400.00"))


async def test_a_charge_for_somebody_else_is_wrong(world: World) -> None:
    one = await world.finish()
    await world.charge(one, patient_id=UUID(int=1))
    ((finding,), _, _) = await world.audit()
    assert finding.explanation == f"the charge says patient_id {UUID(int=1)} instead of {one.patient_id}"


async def test_a_charge_is_judged_by_the_policy_that_it_names_whatever_today_s_is(world: World) -> None:
    for policy in POLICIES:
        await world.charge(await world.finish(), policy=policy)
    assert await world.audit() == ([], 3, 0)


async def test_an_amount_beyond_all_money_is_a_finding_and_no_failure(world: World) -> None:
    dear = await world.finish(price=Money("9999999999999.99"))
    ((finding,), _, _) = await world.audit()
    assert (finding.kind, finding.expected) == ("missing", None)
    await world.charge(replace(dear, price=Money("1.00")))
    ((finding,), _, _) = await world.audit()
    assert (finding.kind, finding.expected, finding.found) == ("wrong", None, Money("2.00"))


async def test_what_was_finished_or_charged_within_the_grace_is_in_flight_and_only_counted(
    world: World,
) -> None:
    await world.finish()
    await world.charge(an_appointment(end=TWO_O_CLOCK))
    assert await world.audit(at_once=True) == ([], 2, 2)
    an_hour = timedelta(hours=1)
    assert [each.kind for each in (await world.audit(an_hour))[0]] == [
        "orphaned"
    ]  # an end is cut to the second, and may be later
    assert len((await world.audit(an_hour - timedelta(seconds=1)))[0]) == 2


@pytest.mark.parametrize(("ahead", "in_flight"), [(timedelta(days=1), 0), (GRACE / 2, 1)])
async def test_what_a_clock_dated_far_ahead_is_not_in_flight_until_then(
    world: World, ahead: timedelta, in_flight: int
) -> None:
    await world.finish()
    audit = AuditCharges(world.charges, world.letters, POLICIES["hours-begun"], lambda: TWO_O_CLOCK - ahead)
    (chunk,) = [each async for each in audit(world.finished, GRACE)]
    assert (chunk.in_flight, len(chunk.findings)) == (in_flight, 1 - in_flight)


async def test_what_was_republished_within_the_grace_is_in_flight(world: World) -> None:
    lost = await world.finish()
    world.clock.moment = LATER
    await world.finished.republish(lost.id)
    assert await world.audit() == ([], 1, 1)


class ReadTooEarly(MemoryCharges):
    """Its lists are from before everything that was charged."""

    async def by_appointment(self, limit: int, after: UUID | None = None) -> Sequence[Charge]:  # noqa: ARG002 — nothing yet
        return []


async def test_what_is_charged_while_the_audit_reads_is_not_missing(world: World) -> None:
    world.charges = ReadTooEarly()
    await world.charge(await world.finish())
    assert await world.audit(timedelta(0)) == ([], 1, 0)


class ListedTooEarly(Finished):
    """Its pages are from before everything that was finished."""

    async def page(self, limit: int, after: UUID | None = None) -> Sequence[AppointmentFinished]:  # noqa: ARG002 — nothing yet
        return []


async def test_what_is_finished_while_the_audit_reads_is_not_orphaned(world: World) -> None:
    await world.charge(await world.finish())

    audit = AuditCharges(world.charges, world.letters, POLICIES["hours-begun"], lambda: LATER)
    chunks = [each async for each in audit(ListedTooEarly(world.appointments), timedelta(0))]
    assert [(each.appointments, each.in_flight, each.findings) for each in chunks] == [(1, 0, [])]


async def test_any_ids_in_any_number_are_compared_in_pages(world: World) -> None:
    odd = [UUID(int=number) for number in (0, 1, 1 << 127, (1 << 128) - 1)]
    many = [
        an_appointment(end=TWO_O_CLOCK, **({"id": odd[number]} if number < len(odd) else {}))
        for number in range(2 * PAGE_SIZE + 7)
    ]
    await world.restore(*many)
    left_out = {*odd, many[PAGE_SIZE].id, many[-1].id}
    await world.charge(*(each for each in many if each.id not in left_out))
    orphans = [an_appointment(end=TWO_O_CLOCK) for _ in range(3)]
    await world.charge(*orphans)

    findings, compared, _ = await world.audit()

    assert compared == len(many) + len(orphans)
    assert {each.appointment_id for each in findings if each.kind == "missing"} == left_out
    assert {each.appointment_id for each in findings if each.kind == "orphaned"} == {
        each.id for each in orphans
    }
    found = [each.appointment_id for each in findings]
    assert found == sorted(found, reverse=True)


async def test_a_repair_republishes_what_is_missing_and_it_is_charged_as_it_was(world: World) -> None:
    mended = await world.finish()
    async with running(world.services()):
        (repair,) = await world.repair(within=LONG)
    assert repair == Repair("charged", "charged 400.00", Money("400.00"))
    assert (await world.charges.get(mended.id)).total == Money("400.00")
    assert await world.audit() == ([], 1, 0)


async def test_a_repair_of_more_than_one_batch_mends_all(world: World) -> None:
    await world.restore(*(an_appointment(end=TWO_O_CLOCK) for _ in range(250)))
    async with running(world.services()):
        repairs = await world.repair(within=LONG)
    assert {each.outcome for each in repairs} == {"charged"}
    assert await world.audit() == ([], 250, 0)


async def test_without_services_a_repair_republishes_once_and_names_the_service(world: World) -> None:
    await world.finish()
    (repair,) = await world.repair()
    assert repair.outcome == "republished"
    assert "is the appointment service running?" in repair.explanation
    (claimed,) = await world.appointments.claim(10)
    await world.appointments.confirm([PublishResult(claimed.message, "log/2", TWO_O_CLOCK)])
    async with running(world.relay()):
        (repair,) = await world.repair()
    assert repair.outcome == "republished"
    assert "is the financial service running?" in repair.explanation


async def test_a_repair_that_waits_not_at_all_says_so_by_what_it_did(world: World) -> None:
    await world.finish()
    assert await world.repair(within=0) == [Repair("republished", "republished")]


class CountsWaiters(MemoryCharges):
    """How often somebody waited."""

    waits = 0

    async def wait_for(self, appointment_id: UUID, within: float) -> Charge:
        self.waits += 1
        return await super().wait_for(appointment_id, within)


async def test_where_nothing_comes_a_repair_republishes_the_rest_without_waiting(world: World) -> None:
    world.charges = charges = CountsWaiters()
    await world.restore(*(an_appointment(end=TWO_O_CLOCK) for _ in range(250)))
    assert {each.outcome for each in await world.repair()} == {"republished"}
    assert len(await world.appointments.claim(1000)) == 250
    assert charges.waits == CONCURRENCY


async def test_where_nothing_comes_the_next_chunks_are_not_waited_for_either(world: World) -> None:
    world.charges = charges = CountsWaiters()
    await world.restore(*(an_appointment(end=TWO_O_CLOCK) for _ in range(3 * CONCURRENCY)))
    findings, _, _ = await world.audit()

    async def chunks() -> AsyncIterator[Sequence[Finding]]:
        for first in range(0, len(findings), CONCURRENCY):
            yield findings[first : first + CONCURRENCY]

    repaired: AsyncIterator[tuple[Finding, Repair]] = RepairCharges(charges, world.letters)(
        chunks(), world.finished, SHORT
    )
    assert [repair.outcome async for _, repair in repaired] == ["republished"] * 3 * CONCURRENCY
    assert charges.waits == CONCURRENCY


async def test_a_repair_leaves_alone_what_waits_or_needs_a_person(world: World) -> None:
    await world.letters.add([a_waiting_letter(await world.finish())])
    await world.charge(an_appointment(end=TWO_O_CLOCK))
    await world.charge(await world.finish(), total=Money("1.00"))
    before = await world.charges.by_appointment(10)
    repairs = await world.repair()
    assert sorted(each.outcome for each in repairs) == ["dead-lettered", "left alone", "left alone"]
    assert await world.charges.by_appointment(10) == before
    assert await world.appointments.oldest() is None


async def test_a_repair_does_not_republish_what_waits_to_be_published(world: World) -> None:
    await world.finish_untold()
    (repair,) = await world.repair()
    assert repair.outcome == "left alone"
    assert len(await world.appointments.claim(10)) == 1


async def test_a_repair_whose_event_is_dead_lettered_says_so(world: World) -> None:
    lost = await world.finish()

    async def set_aside() -> None:
        for each in await world.appointments.claim(10):
            await world.letters.add([a_waiting_letter(lost)])
            await world.appointments.confirm([PublishResult(each.message, "log/2", LATER)])

    async with running(set_aside()):
        (repair,) = await world.repair()
    assert repair.outcome == "dead-lettered"
    assert repair.explanation == (
        "republished, and dead-lettered: it is beyond all money; "
        "`clinic dead-letters replay log/1` tries again"
    )


async def test_what_is_gone_when_it_should_be_republished_is_left_alone(world: World) -> None:
    await world.finish()
    findings, _, _ = await world.audit()
    elsewhere = World().finished
    repaired: AsyncIterator[tuple[Finding, Repair]] = RepairCharges(world.charges, world.letters)(
        in_one_chunk(findings), elsewhere, SHORT
    )
    ((_, repair),) = [pair async for pair in repaired]
    assert repair.outcome == "left alone"
    assert "there is no appointment" in repair.explanation
