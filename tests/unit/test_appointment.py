"""An appointment starts, and finishes once."""

from datetime import timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from clinic.domain.appointment.model import Appointment
from clinic.domain.events import AppointmentFinished
from clinic.domain.money import Money
from clinic.testing.builders import ONE_O_CLOCK, TWO_O_CLOCK, an_appointment

ALMOST_A_SECOND = timedelta(microseconds=999_999)


def test_it_starts_in_whole_seconds_at_its_price() -> None:
    id_ = uuid4()
    physician = uuid4()
    patient = uuid4()
    started = Appointment.started(
        id=id_,
        physician_id=physician,
        patient_id=patient,
        price=Money("200.00"),
        now=ONE_O_CLOCK + ALMOST_A_SECOND,
    )
    assert started == Appointment(
        id=id_, physician_id=physician, patient_id=patient, price=Money("200.00"), start=ONE_O_CLOCK
    )
    assert (started.end, started.version) == (None, 1)


def test_it_finishes_in_whole_seconds() -> None:
    finished, event = an_appointment().finish(TWO_O_CLOCK + ALMOST_A_SECOND)
    assert finished.end == TWO_O_CLOCK
    assert event
    assert event.end == TWO_O_CLOCK


def test_the_event_has_all_that_a_charge_needs() -> None:
    started = an_appointment()
    _, event = started.finish(TWO_O_CLOCK)
    assert event == AppointmentFinished(
        appointment_id=started.id,
        physician_id=started.physician_id,
        patient_id=started.patient_id,
        price=started.price,
        start=started.start,
        end=TWO_O_CLOCK,
    )


def test_finishing_again_gives_the_first_end_and_no_event() -> None:
    finished, _ = an_appointment().finish(TWO_O_CLOCK)
    assert finished.finish(TWO_O_CLOCK + timedelta(hours=1)) == (finished, None)


@given(st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_it_never_ends_before_it_starts(behind: timedelta) -> None:
    finished, event = an_appointment().finish(ONE_O_CLOCK + behind)
    assert finished.end
    assert event
    assert finished.end == event.end == max(ONE_O_CLOCK, (ONE_O_CLOCK + behind).replace(microsecond=0))


def test_with_a_clock_that_is_behind_the_end_is_the_start() -> None:
    finished, _ = an_appointment().finish(ONE_O_CLOCK - timedelta(hours=1))
    assert finished.end == ONE_O_CLOCK


def test_finishing_changes_nothing_else() -> None:
    started = an_appointment()
    finished, _ = started.finish(TWO_O_CLOCK)
    assert finished == an_appointment(
        id=started.id, physician_id=started.physician_id, patient_id=started.patient_id, end=TWO_O_CLOCK
    )
