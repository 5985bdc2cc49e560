"""A suite that nothing can fail proves nothing: each adapter that breaks a promise is caught by the promise's
own test.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clinic.testing import __file__ as kit

ROOT = Path(__file__).parents[2]
BROKEN = Path(kit).with_name("broken.py")
CAUGHT_BY = {
    "LosesAnEvent": "test_all_events_of_a_save_are_kept_with_its_state",
    "AddsTwice": "test_of_all_added_under_one_key_the_first_is_kept_and_returned",
    "ReturnsItAsItIs": "test_what_was_added_under_a_key_is_returned_as_it_was_added",
    "LosesExtensions": "test_all_events_of_a_save_are_kept_with_its_state",
    "MisdatesASave": "test_a_claim_says_when_its_event_was_saved_as_its_status_does",
    "KeepsEventsOfAConflict": "test_a_conflicting_save_keeps_no_event_and_no_state",
    "LetsTheLastWriterWin": "test_of_fifty_concurrent_saves_exactly_one_wins",
    "HandsOneEventToTwo": "test_within_its_lease_an_event_is_handed_to_one_caller",
    "ForgetsTheWholeOutbox": "test_an_event_saved_before_confirming_is_still_handed_over",
    "NeverHandsOverAgain": "test_after_its_lease_an_event_is_handed_over_again",
    "Backwards": "test_the_first_time_events_of_one_key_come_in_the_order_of_their_saves",
    "SleepsThroughASave": "test_a_waiting_claim_wakes_as_soon_as_something_is_saved",
    "ForgetsWhatItPublished": "test_status_says_when_an_event_was_saved_and_when_and_where_published",
    "RestsOnTheFirstSave": "test_an_event_saved_again_waits_until_it_is_published_again",
    "ConfusesTwoEvents": "test_each_event_of_an_appointment_has_a_status_of_its_own",
    "StartsOverAtEachPage": "test_all_are_shown_by_appointment_the_newest_id_first_from_behind_a_given_one",
    "Overwrites": "test_the_first_charge_stays_for_ever",
    "NeverWakes": "test_a_charge_wakes_all_who_wait_for_it_and_nobody_else",
    "ForgetsTheFirstSight": "test_one_that_is_there_already_keeps_its_first_sight_and_gains_attempts",
    "CountsARetryAgain": "test_the_same_arrival_never_counts_twice_however_often_it_is_retried",
    "ForgetsTheState": "test_one_that_is_there_already_keeps_its_state_and_its_history",
    "WaitsAnewWhenItArrivesAgain": "test_one_that_is_there_already_keeps_its_state_and_its_history",
    "RecordsOverAnother": "test_an_entry_over_another_since_it_was_read_is_a_conflict",
    "Doubles": "test_what_was_published_arrives_once_where_nothing_goes_wrong",
    "Drops": "test_what_was_published_before_the_first_subscription_opens_is_received",
    "Reorders": "test_messages_of_one_key_arrive_in_order",
    "AcknowledgesTooEarly": "test_what_a_dead_member_did_not_acknowledge_comes_again_with_the_same_positions",
    "NeverAcknowledges": "test_what_was_acknowledged_never_comes_again",
    "StartsAtTheEnd": "test_what_was_published_before_the_first_subscription_opens_is_received",
    "Deduplicates": "test_a_message_that_is_published_again_arrives_again",
    "ForgetsHeaders": "test_key_headers_and_value_read_back_as_the_message",
    "DropsExtensions": "test_every_extension_of_a_message_arrives_as_it_was",
    "RaisesOnWhatIsNotHeld": "test_acknowledging_what_is_no_longer_held_does_nothing",
    "AcknowledgesWhateverIsHeld": "test_acknowledging_what_is_no_longer_held_does_nothing",
    "LosesPatience": "test_a_batch_stays_held_however_long_the_work_on_it_takes",
    "NamelessLog": "test_a_position_names_its_log_and_a_group_begins_anew_in_a_new_one",
    "ComesBackInSilence": "test_after_a_failure_an_empty_batch_says_that_the_log_answers_again",
    "SplitsAKey": "test_while_a_message_is_held_no_other_member_gets_a_later_one_of_its_key",
    "AdmitsASecondMember": "test_a_second_member_is_refused_where_a_group_has_one",
}
BEYOND_HISTORIES = {"AdmitsASecondMember", "ComesBackInSilence"}
"""Histories have one member a group, and logs that always answer."""
IN_HISTORIES = sorted(CAUGHT_BY.keys() - BEYOND_HISTORIES)
HISTORIES = "test_any_history_of_calls_goes_as_a_simple_model_says"
CAUGHT = r"AssertionError|assert |Failed: DID NOT RAISE|clinic\.domain\.errors\.(NotFound|Unavailable)"
CAUGHT_ONCE = r"hypothesis\.errors\.Flaky"
"""A failure that did not come again when its history was repeated, as may be on a busy machine: nothing else
can differ, since what a machine chooses never depends on its subject.
"""


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """What the suites say of the broken adapters: the reason, by adapter and test."""
    caught = [*CAUGHT_BY.items(), *((adapter, HISTORIES) for adapter in IN_HISTORIES)]
    tests = [f"{BROKEN}::Test{adapter}::{test}" for adapter, test in caught]
    command = [sys.executable, "-m", "pytest", "-rf", "--tb=no", "-p", "no:cacheprovider", *tests]
    wide = os.environ | {"COLUMNS": "1000"}  # a narrow report cuts the reasons off
    report = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=False).stdout
    return {
        f"{name}.{test}": reason
        for name, test, reason in re.findall(r"FAILED \S+::Test(\w+)::(\w+) - (.*)", report)
    }


@pytest.mark.parametrize(("adapter", "test"), CAUGHT_BY.items(), ids=CAUGHT_BY)
def test_each_broken_promise_is_caught_by_its_own_test(
    failures: dict[str, str], adapter: str, test: str
) -> None:
    assert_caught(failures[f"{adapter}.{test}"])


@pytest.mark.parametrize("adapter", IN_HISTORIES)
def test_each_broken_promise_is_caught_by_a_history_that_goes_another_way(
    failures: dict[str, str], adapter: str
) -> None:
    assert_caught(failures[f"{adapter}.{HISTORIES}"], says=f"{CAUGHT}|{CAUGHT_ONCE}")


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        ("Drops", "2 of 3 arrived within 0.3 s; missing #2"),
        (
            "Reorders",
            "#3 #0 #9 #6 #15 #12 #21 #18 #27 #24, expected #0 #3 #6 #9 #12 #15 #18 #21 #24 #27",
        ),
        ("ComesBackInSilence", "no answer within 0.3 s"),
    ],
)
def test_a_failure_says_what_came_and_what_was_expected(
    failures: dict[str, str], adapter: str, says: str
) -> None:
    assert failures[f"{adapter}.{CAUGHT_BY[adapter]}"] == f"AssertionError: {says}"


def assert_caught(reason: str, says: str = CAUGHT) -> None:
    assert re.match(says, reason), reason


def test_every_broken_adapter_is_tried() -> None:
    assert set(re.findall(r"^class Test(\w+)", BROKEN.read_text(), re.MULTILINE)) == set(CAUGHT_BY)
