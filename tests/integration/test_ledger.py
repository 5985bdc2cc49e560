"""The ledger finds what it is there to find: each breach that is planted, and none where there is none."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from support.ledger import History, Json, Kept, compare, due

ONE, TWO = "one", "two"


def appointment(appointment_id: str, **different: object) -> Json:
    dates = {"start_date": "2020-12-01 13:00:00", "end_date": "2020-12-01 14:00:00"}
    people = {"physician_id": f"physician of {appointment_id}", "patient_id": f"patient of {appointment_id}"}
    return {"id": appointment_id, **dates, **people, "price": Decimal("200.00"), **different}


def charge(appointment_id: str, **different: object) -> Json:
    total = {"appointment_id": appointment_id, "total_price": Decimal("400.00")}
    return (
        total
        | {name: value for name, value in appointment(appointment_id).items() if name != "id"}
        | different
    )


def a_history() -> History:
    history = History()
    for each in (ONE, TWO):
        history.started[each] = appointment(each, end_date=None)
    history.acknowledged_finish(appointment(ONE))
    history.saw_charge(ONE, Decimal("400.00"))
    return history


def found(appointments: list[Json], *charges: Json) -> Kept:
    return Kept(appointments, list(charges))


AS_ACKNOWLEDGED = [appointment(ONE), appointment(TWO, end_date=None)]


def test_it_finds_nothing_where_answers_and_stores_agree() -> None:
    assert not compare(
        a_history(), found(AS_ACKNOWLEDGED, charge(ONE)), {ONE: Decimal("400.00"), TWO: None}
    ).breaches


@pytest.mark.parametrize("is_done", [True, False])
def test_a_finish_whose_answer_was_lost_may_be_done_or_not(is_done: bool) -> None:
    history = a_history()
    history.perhaps_finished.add(TWO)
    kept = (
        found([appointment(ONE), appointment(TWO)], charge(ONE), charge(TWO))
        if is_done
        else found(AS_ACKNOWLEDGED, charge(ONE))
    )

    assert not compare(history, kept, {}).breaches


@pytest.mark.parametrize(
    ("kept", "breaches"),
    [
        (found(AS_ACKNOWLEDGED), {"lost": {ONE}, "changed": {ONE}}),
        (found(AS_ACKNOWLEDGED, charge(ONE), charge(ONE)), {"doubled": {ONE}}),
        (
            found(AS_ACKNOWLEDGED, charge(ONE, total_price=Decimal("200.00"))),
            {"wrong": {ONE}, "changed": {ONE}},
        ),
        (found(AS_ACKNOWLEDGED, charge(ONE, end_date="2020-12-01 13:59:59")), {"wrong": {ONE}}),
        (found(AS_ACKNOWLEDGED, charge(ONE), charge(TWO)), {"unfounded": {TWO}}),
        (found([appointment(ONE), appointment(TWO)], charge(ONE), charge(TWO)), {"unfounded": {TWO}}),
        (found([appointment(ONE)], charge(ONE)), {"lost": {TWO}}),
        (
            found([*AS_ACKNOWLEDGED, appointment(TWO, id="three", end_date=None)], charge(ONE)),
            {"started twice": {TWO, "three"}},
        ),
        (
            found([*AS_ACKNOWLEDGED[1:], appointment(ONE, start_date="2020-12-01 13:00:01")], charge(ONE)),
            {"changed": {ONE}, "wrong": {ONE}},
        ),
    ],
)
def test_it_names_each_breach(kept: Kept, breaches: dict[str, set[str]]) -> None:
    assert compare(a_history(), kept, {}).breaches == breaches


def test_a_total_that_is_shown_otherwise_than_listed_is_wrong() -> None:
    assert compare(a_history(), found(AS_ACKNOWLEDGED, charge(ONE)), {ONE: Decimal("200.00")}).breaches == {
        "wrong": {ONE}
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda history: history.acknowledged_finish(appointment(ONE, end_date="2020-12-01 14:00:01")),
        lambda history: history.saw_charge(ONE, Decimal("200.00")),
        lambda history: history.acknowledged_start(appointment(ONE)),
    ],
)
def test_what_changes_while_it_is_watched_is_a_breach_though_it_changes_back(
    change: Callable[[History], None],
) -> None:
    history = a_history()
    change(history)

    assert compare(history, found(AS_ACKNOWLEDGED, charge(ONE)), {}).breaches == {"changed": {ONE}}


@pytest.mark.parametrize(
    ("end", "total"),
    [("13:00:00", "200.00"), ("13:59:59", "200.00"), ("14:00:00", "400.00"), ("15:00:00", "600.00")],
)
def test_what_is_due_is_every_hour_that_has_begun(end: str, total: str) -> None:
    assert due(appointment(ONE, end_date=f"2020-12-01 {end}")) == Decimal(total)


@pytest.mark.parametrize(
    ("pricing", "end", "total"),
    [
        ("hours-begun", "14:00:00", "266.66"),
        ("whole-hours", "14:59:59", "133.33"),
        ("pro-rata", "13:00:01", "133.33"),
        ("pro-rata", "14:00:01", "133.37"),
        ("pro-rata", "14:30:00", "200.00"),  # 199.995
    ],
)
def test_each_policy_has_its_price_and_half_a_cent_is_rounded_up(pricing: str, end: str, total: str) -> None:
    assert due(appointment(ONE, price=Decimal("133.33"), end_date=f"2020-12-01 {end}"), pricing) == Decimal(
        total
    )
