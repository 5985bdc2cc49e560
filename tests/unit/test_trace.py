"""What the financial context knows of the way to a charge, on the memory stores."""

from datetime import timedelta
from uuid import uuid4

import pytest
from msgspec.structs import replace

from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.domain.errors import NotFound
from clinic.domain.events import event_id
from clinic.domain.financial.tracing import TraceCharge
from clinic.domain.tracing import Step
from clinic.testing.builders import ONE_O_CLOCK, TWO_O_CLOCK, a_charge, a_history_entry, a_letter, an_origin

ABOUT = uuid4()
LETTER = a_letter(
    about=str(ABOUT),
    message_id=str(event_id(ABOUT)),
    published_at=ONE_O_CLOCK,
    first_seen=ONE_O_CLOCK,
    last_seen=TWO_O_CLOCK,
    attempts=3,
)
AT_THREE = TWO_O_CLOCK + timedelta(hours=1)
SET_ASIDE = [
    Step(event="published", at=ONE_O_CLOCK, position="log/1"),
    Step(event="dead-lettered", at=ONE_O_CLOCK, position="log/1", attempts=3, note="it cannot be read"),
]


async def test_a_charge_says_where_its_event_came_from() -> None:
    charges = MemoryCharges()
    origin = an_origin(position="log/7", published_at=ONE_O_CLOCK, received_at=TWO_O_CLOCK, attempts=2)
    await charges.add([charge := a_charge(origin=origin, charged_at=AT_THREE)])
    trace = await TraceCharge(charges, MemoryDeadLetters())(charge.appointment_id)
    assert trace.steps == [
        Step(event="published", at=ONE_O_CLOCK, position="log/7"),
        Step(event="received", at=TWO_O_CLOCK, position="log/7", attempts=2),
        Step(event="charged", at=AT_THREE, total=charge.total, note="hours-begun"),
    ]
    assert (trace.waits_for, trace.explanation) == ("nothing", "charged 400.00")


async def test_a_letter_that_waits_needs_a_person_and_names_the_command() -> None:
    letters = MemoryDeadLetters()
    await letters.add([LETTER, a_letter(position="log/2", about="another")])
    trace = await TraceCharge(MemoryCharges(), letters)(ABOUT)
    assert trace.steps == SET_ASIDE
    assert trace.waits_for == "a person"
    assert (
        trace.explanation
        == "dead-lettered: it cannot be read; `clinic dead-letters replay log/1` tries again"
    )


async def test_one_of_several_letters_that_waits_is_enough() -> None:
    letters = MemoryDeadLetters()
    await letters.add([LETTER, replace(LETTER, position="log/2")])
    await letters.record(LETTER, a_history_entry(event="discarded", note="a test"))
    trace = await TraceCharge(MemoryCharges(), letters)(ABOUT)
    assert trace.waits_for == "a person"
    assert "log/2" in trace.explanation
    assert [step.event for step in trace.steps] == [
        "published",
        "dead-lettered",
        "published",
        "dead-lettered",
        "discarded",
    ]


async def test_what_was_discarded_waits_for_nothing() -> None:
    letters = MemoryDeadLetters()
    await letters.add([LETTER])
    await letters.record(LETTER, a_history_entry(event="discarded", note="a test"))
    trace = await TraceCharge(MemoryCharges(), letters)(ABOUT)
    assert trace.steps == [
        *SET_ASIDE,
        Step(event="discarded", at=TWO_O_CLOCK, position="log/1", by="anna", note="a test"),
    ]
    assert trace.waits_for == "nothing"
    assert "discarded by anna: a test; `clinic dead-letters replay log/1`" in trace.explanation


async def test_what_was_replayed_and_charged_shows_both_in_the_order_of_time() -> None:
    charges, letters = MemoryCharges(), MemoryDeadLetters()
    await letters.add([LETTER])
    await charges.add(
        [a_charge(appointment_id=ABOUT, origin=an_origin(received_at=ONE_O_CLOCK), charged_at=TWO_O_CLOCK)]
    )
    await letters.record(LETTER, a_history_entry(at=AT_THREE))
    trace = await TraceCharge(charges, letters)(ABOUT)
    assert [step.event for step in trace.steps][-2:] == ["charged", "replayed"]
    assert [step.at for step in trace.steps] == sorted(step.at for step in trace.steps)
    assert trace.waits_for == "nothing"


async def test_a_replay_without_a_charge_is_no_end() -> None:
    letters = MemoryDeadLetters()
    await letters.add([LETTER])
    await letters.record(LETTER, a_history_entry())
    assert (await TraceCharge(MemoryCharges(), letters)(ABOUT)).waits_for is None


@pytest.mark.parametrize("state", ["waiting", "discarded", "replayed"])
async def test_a_letter_of_somebody_else_is_shown_and_is_no_end(state: str) -> None:
    letters = MemoryDeadLetters()
    await letters.add([replace(LETTER, message_id="of another", state=state)])
    trace = await TraceCharge(MemoryCharges(), letters)(ABOUT)
    assert trace.steps == SET_ASIDE
    assert trace.waits_for is None
    assert ("log/1 is about it, too" in trace.explanation) == (state == "waiting")


async def test_its_own_letter_is_found_among_many_others() -> None:
    letters = MemoryDeadLetters()
    await letters.add(
        [replace(LETTER, position=f"log/1/{number:02}", message_id=str(number)) for number in range(50)]
    )
    await letters.add([replace(LETTER, position="log/9")])
    trace = await TraceCharge(MemoryCharges(), letters)(ABOUT)
    assert trace.waits_for == "a person"
    assert "log/9" in {step.position for step in trace.steps}


async def test_nothing_is_known_of_what_never_arrived() -> None:
    with pytest.raises(NotFound):
        await TraceCharge(MemoryCharges(), MemoryDeadLetters())(ABOUT)
