"""What the financial context does, on the memory store."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import pytest
from msgspec.structs import replace

from clinic.adapters.memory.charges import MemoryCharges
from clinic.domain.errors import NotFound, Refused, Unavailable
from clinic.domain.financial.model import Charge
from clinic.domain.financial.ports import AddResult, ChargeFilter
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.use_cases import ChargeAppointments, FindCharge, ListCharges
from clinic.domain.money import Money
from clinic.testing.builders import (
    TWO_O_CLOCK,
    RecordedTelemetry,
    StandingClock,
    a_charge,
    an_event,
    an_origin,
    received,
)


@pytest.fixture
def charges() -> MemoryCharges:
    return MemoryCharges()


@pytest.fixture
def telemetry() -> RecordedTelemetry:
    return RecordedTelemetry()


@pytest.fixture
def charge(charges: MemoryCharges, telemetry: RecordedTelemetry) -> ChargeAppointments:
    return ChargeAppointments(charges, POLICIES["hours-begun"], StandingClock(TWO_O_CLOCK), telemetry)


def names(telemetry: RecordedTelemetry) -> list[str]:
    return [name for name, _ in telemetry]


async def test_every_finished_appointment_is_charged(
    charges: MemoryCharges, charge: ChargeAppointments, telemetry: RecordedTelemetry
) -> None:
    events = [an_event(), an_event()]
    await charge([received(event) for event in events])
    for event in events:
        kept = await charges.get(event.appointment_id)
        assert (kept.total, kept.charged_at, kept.origin) == (Money("400.00"), TWO_O_CLOCK, an_origin())
    expected = [
        {"event_id": str(event.id), "appointment_id": str(event.appointment_id), "total": "400.00"}
        for event in events
    ]
    assert telemetry.named("charged") == expected


async def test_an_event_that_is_republished_changes_nothing(
    charges: MemoryCharges, charge: ChargeAppointments, telemetry: RecordedTelemetry
) -> None:
    event = an_event()
    await charge([received(event, position="log/1")])
    await charge([received(event, position="log/2")])
    assert (await charges.get(event.appointment_id)).origin.position == "log/1"
    assert names(telemetry) == ["charged", "already charged"]


async def test_an_event_that_comes_twice_in_a_batch_is_charged_once(
    charges: MemoryCharges, charge: ChargeAppointments, telemetry: RecordedTelemetry
) -> None:
    event = an_event()
    await charge([received(event, position="log/1"), received(event, position="log/2")])
    assert (await charges.get(event.appointment_id)).origin.position == "log/1"
    assert names(telemetry) == ["charged", "already charged"]


@pytest.mark.parametrize("together", [True, False])
async def test_a_later_event_that_differs_is_noticed_and_never_applied(
    charges: MemoryCharges, charge: ChargeAppointments, telemetry: RecordedTelemetry, together: bool
) -> None:
    first = an_event()
    later = an_event(appointment_id=first.appointment_id, price=Money("1.00"))
    for batch in [[first, later]] if together else [[first], [later]]:
        await charge([received(event) for event in batch])
    assert (await charges.get(first.appointment_id)).total == Money("400.00")
    assert names(telemetry) == ["charged", "differs from its charge"]
    assert telemetry[1][1] == {
        "event_id": str(first.id),
        "appointment_id": str(first.appointment_id),
        "total": "400.00",
    }


async def test_a_batch_with_one_that_cannot_be_charged_is_refused_and_charges_nothing(
    charges: MemoryCharges, charge: ChargeAppointments, telemetry: RecordedTelemetry
) -> None:
    with pytest.raises(Refused):
        await charge([received(an_event()), received(an_event(price=Money("9999999999999.99")))])
    assert list(await charges.page(ChargeFilter(), 10)) == []
    assert telemetry == []


async def test_a_charge_is_found_at_once_or_not_at_all(charges: MemoryCharges) -> None:
    await charges.add([kept := a_charge()])
    assert await FindCharge(charges)(kept.appointment_id) == kept
    with pytest.raises(NotFound):
        await FindCharge(charges)(uuid4())


async def test_who_waits_for_a_charge_gets_it_when_it_comes(
    charges: MemoryCharges, charge: ChargeAppointments
) -> None:
    event = an_event()
    waiting = asyncio.create_task(FindCharge(charges)(event.appointment_id, timeout=10))
    await asyncio.sleep(0)
    await charge([received(event)])
    assert (await waiting).total == Money("400.00")


async def test_charges_are_listed_a_page_at_a_time(charges: MemoryCharges) -> None:
    kept = sorted([a_charge() for _ in range(3)], key=lambda each: each.cursor, reverse=True)
    await charges.add(kept)
    listed = ListCharges(charges)
    assert list(await listed(ChargeFilter(), 2)) == kept[:2]
    assert list(await listed(ChargeFilter(), 2, kept[1].cursor)) == kept[2:]


class BusyAtFirst(MemoryCharges):
    """Its first call waits for a lock that it does not get."""

    calls = 0

    async def add(self, charges: Sequence[Charge]) -> AddResult:
        self.calls += 1
        if self.calls == 1:
            raise Unavailable("the store is busy")
        return await super().add(charges)


async def test_each_attempt_is_charged_at_its_own_time() -> None:
    charges, times = BusyAtFirst(), [TWO_O_CLOCK, TWO_O_CLOCK + timedelta(seconds=5)]
    charge = ChargeAppointments(charges, POLICIES["hours-begun"], iter(times).__next__, RecordedTelemetry())
    event = received(an_event())
    with pytest.raises(Unavailable):
        await charge([event])
    await charge([event])
    assert (await charges.get(event.event.appointment_id)).charged_at == times[1]


class CannotReadBack(MemoryCharges):
    """Knows that there is a charge, and does not find it."""

    async def add(self, charges: Sequence[Charge]) -> AddResult:
        return replace(await super().add(charges), existing=[])


async def test_a_duplicate_whose_charge_cannot_be_read_back_is_unknown(telemetry: RecordedTelemetry) -> None:
    charge = ChargeAppointments(
        CannotReadBack(), POLICIES["hours-begun"], StandingClock(TWO_O_CLOCK), telemetry
    )
    await charge([event := received(an_event())])
    with pytest.raises(Unavailable, match="read back"):
        await charge([event])
