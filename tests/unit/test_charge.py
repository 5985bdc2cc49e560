"""A charge: what an appointment costs, and what explains it."""

from datetime import timedelta
from fractions import Fraction

import pytest

from clinic.domain.errors import Unreadable
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.money import Money
from clinic.testing.builders import ONE_O_CLOCK, TWO_O_CLOCK, a_charge, an_event, an_origin, received


def test_it_holds_what_explains_it() -> None:
    event = an_event()
    charge = Charge.for_finished(received(event, position="log/7"), POLICIES["hours-begun"], TWO_O_CLOCK)
    assert charge == Charge(
        appointment_id=event.appointment_id,
        physician_id=event.physician_id,
        patient_id=event.patient_id,
        price=Money("200.00"),
        start=ONE_O_CLOCK,
        end=TWO_O_CLOCK,
        pricing="hours-begun",
        hours=Fraction(2),
        total=Money("400.00"),
        charged_at=TWO_O_CLOCK,
        origin=an_origin(position="log/7"),
    )


@pytest.mark.parametrize(
    ("policy", "total"), [("hours-begun", "400.00"), ("whole-hours", "200.00"), ("pro-rata", "200.00")]
)
def test_its_policy_is_recorded_with_its_total(policy: str, total: str) -> None:
    charge = Charge.for_finished(received(an_event()), POLICIES[policy], TWO_O_CLOCK)
    assert (charge.pricing, charge.total) == (policy, Money(total))


def test_what_costs_more_than_all_money_is_refused() -> None:
    with pytest.raises(Unreadable):
        Charge.for_finished(
            received(an_event(price=Money("9999999999999.99"))), POLICIES["hours-begun"], TWO_O_CLOCK
        )


def test_its_place_is_its_time_and_then_its_appointment() -> None:
    charge = a_charge()
    assert charge.cursor == ChargeCursor(TWO_O_CLOCK, charge.appointment_id)


@pytest.mark.parametrize(
    "change", [{"price": Money("1.00")}, {"start": ONE_O_CLOCK - timedelta(seconds=1)}, {"end": ONE_O_CLOCK}]
)
def test_another_price_start_or_end_disagrees(change: dict[str, object]) -> None:
    assert not a_charge().agrees_with(a_charge(**change))


@pytest.mark.parametrize(
    "change", [{"total": Money("1.00")}, {"pricing": "pro-rata"}, {"origin": an_origin(position="log/2")}]
)
def test_what_this_side_decided_is_no_disagreement(change: dict[str, object]) -> None:
    assert a_charge().agrees_with(a_charge(**change))
