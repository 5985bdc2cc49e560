"""Dead letters over HTTP: there for whoever has the token, and not there at all where there is none."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from dependency_injector.providers import Object
from msgspec.structs import replace
from support.apps import Clinic, UnreachableDeadLetters, problem, settings, wrong_fields
from support.logs import Written

from clinic.adapters import cloudevents
from clinic.domain.events import to_message
from clinic.domain.messaging.dead_letters import DeadLetter
from clinic.domain.messaging.messages import Message
from clinic.entrypoints.settings import load
from clinic.entrypoints.telemetry import configure_logging
from clinic.entrypoints.web.dead_letters import BATCH_SIZE
from clinic.testing.builders import a_history_entry, a_letter, an_event, keep

TOKEN = "a token of thirty-two characters"  # noqa: S105 — of no other service than these tests'
GOOD = to_message(an_event())


def of_message(message: Message, position: str, **changes: Any) -> DeadLetter:
    value = message.data or b""
    carried = {
        "key": message.key.encode(),
        "headers": tuple(cloudevents.headers(message)),
        "value": value,
        "length": len(value),
    }
    return replace(
        a_letter(position=position, about=message.subject, type=message.type), **(carried | changes)
    )


MENDED = of_message(GOOD, "topic/0/1", group="mended", attempts=3)
BAD = of_message(GOOD, "topic/0/2", group="bad", value=b"{", length=1, reason="data that cannot be read")
DONE = a_letter(
    position="topic/0/3",
    group="bad",
    state="discarded",
    history=(a_history_entry(event="discarded", by="bob", note="a test"),),
)
REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/dead-letters/", None),
    ("GET", "/dead-letters", None),
    ("GET", "/dead-letters/groups/", None),
    ("GET", "/dead-letters/history/", None),
    ("GET", "/dead-letters/topic/0/1", None),
    ("POST", "/dead-letters/replay/", {"by": "anna", "all": True}),
    ("POST", "/dead-letters/discard/", {"by": "anna", "all": True, "reason": "a test"}),
    ("POST", "/dead-letters/replay/", {}),
]


@pytest.fixture(params=["memory", "sqlite"])
async def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings(request.param, tmp_path, operator_token=TOKEN)).running() as clinic:
        await keep(clinic.financial.dead_letters(), MENDED, BAD, DONE)
        clinic.charges.headers["Authorization"] = f"Bearer {TOKEN}"
        yield clinic


async def kept(clinic: Clinic, position: str) -> DeadLetter:
    letter: DeadLetter = await clinic.financial.dead_letters().get(position)
    return letter


async def handle(clinic: Clinic, what: str, **body: object) -> Any:
    answer = await clinic.charges.post(f"/dead-letters/{what}/", json={"by": "anna", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def positions(items: list[Any]) -> list[str]:
    return [each["position"] for each in items]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_without_a_token_in_the_settings_there_are_no_such_paths(
    tmp_path: Path, method: str, path: str, body: Any
) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            answer = await clinic.charges.request(method, path, json=body, headers=headers)
            nothing = await clinic.charges.request(method, "/nothing/at/all", json=body, headers=headers)
            assert problem(answer, 404) == problem(nothing, 404) | {"instance": path}
            assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
async def test_without_the_right_token_every_path_is_a_401_that_says_what_is_wanted(
    clinic: Clinic, given: str | None
) -> None:
    del clinic.charges.headers["Authorization"]
    headers = {} if given is None else {"Authorization": given.encode()}
    for method, path, body in REQUESTS:
        answer = await clinic.charges.request(method, path, json=body, headers=headers)  # type: ignore[arg-type]
        assert "Bearer" in problem(answer, 401)["detail"]
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await kept(clinic, "topic/0/1") == MENDED


async def test_the_name_of_the_scheme_may_be_written_in_any_case(clinic: Clinic) -> None:
    for scheme in ("bearer", "BEARER"):
        answer = await clinic.charges.get("/dead-letters/", headers={"Authorization": f"{scheme} {TOKEN}"})
        assert answer.status_code == 200


async def test_the_list_shows_letters_by_position_without_their_values(clinic: Clinic) -> None:
    listed = (await clinic.charges.get("/dead-letters/")).json()
    assert listed["items"][0] == {
        "position": "topic/0/1",
        "about": GOOD.subject,
        "type": GOOD.type,
        "group": "mended",
        "reason": "it cannot be read",
        "state": "waiting",
        "attempts": 3,
        "first_seen": "2020-12-01 13:00:00",
        "last_seen": "2020-12-01 13:00:00",
    }
    assert (positions(listed["items"]), listed["next"]) == (["topic/0/1", "topic/0/2", "topic/0/3"], None)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_cursors_lead_through_all_letters(clinic: Clinic, limit: int) -> None:
    seen, query = [], {"limit": limit}
    while True:
        page = (await clinic.charges.get("/dead-letters/", params=query)).json()
        seen += positions(page["items"])
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == ["topic/0/1", "topic/0/2", "topic/0/3"]


async def test_the_list_can_be_filtered(clinic: Clinic) -> None:
    for query, wanted in {
        "state=waiting": ["topic/0/1", "topic/0/2"],
        "state=replayed": [],
        "group=bad": ["topic/0/2", "topic/0/3"],
        "group=bad&state=discarded": ["topic/0/3"],
        f"about={GOOD.subject}": ["topic/0/1", "topic/0/2"],
        "about=%00": [],
    }.items():
        assert positions((await clinic.charges.get(f"/dead-letters/?{query}")).json()["items"]) == wanted, (
            query
        )
    assert (
        "waiting, replayed, discarded"
        in wrong_fields(await clinic.charges.get("/dead-letters/?state=lost"))["state"]
    )
    assert set(wrong_fields(await clinic.charges.get("/dead-letters/?limit=0"))) == {"limit"}
    assert set(wrong_fields(await clinic.charges.get("/dead-letters/?after=x"))) == {"after"}


async def test_the_groups_are_shown_with_their_counts(clinic: Clinic) -> None:
    answer = (await clinic.charges.get("/dead-letters/groups")).json()
    assert answer["more"] == 0
    groups = answer["items"]
    counted = [(each["group"], each["waiting"], each["replayed"], each["discarded"]) for each in groups]
    assert sorted(counted) == [("bad", 1, 0, 1), ("mended", 1, 0, 0)]


async def test_one_is_shown_whole_by_its_position_with_and_without_a_trailing_slash(clinic: Clinic) -> None:
    shown = (await clinic.charges.get("/dead-letters/topic/0/3")).json()
    assert shown["history"] == [
        {"event": "discarded", "by": "bob", "at": "2020-12-01 14:00:00", "note": "a test"}
    ]
    assert shown["value"] == {"encoding": "text", "content": "?", "length": 1, "cut": False}
    assert (await clinic.charges.get("/dead-letters/topic/0/3/")).json() == shown
    assert (await clinic.charges.get("/dead-letters/topic%2F0%2F3")).json() == shown
    assert "topic/0/9" in problem(await clinic.charges.get("/dead-letters/topic/0/9"), 404)["detail"]


async def test_large_letters_are_cut_and_say_how_large_they_are(clinic: Clinic) -> None:
    headers = tuple((f"header {number}", b"x" * 2**16) for number in range(200))
    large = a_letter(
        position="topic/0/9", value=b"\xff" * 2**20, length=2**22, headers=headers, reason="r" * 2**20
    )
    await clinic.financial.dead_letters().add([large])
    answer = await clinic.charges.get("/dead-letters/topic/0/9")
    shown = answer.json()
    assert len(answer.content) < 200_000
    assert (shown["value"]["length"], shown["value"]["cut"], len(shown["headers"])) == (2**22, True, 100)
    assert shown["headers"][0]["value"]["cut"] is True
    assert len((await clinic.charges.get("/dead-letters/")).content) < 10_000


async def test_a_replay_charges_once_and_keeps_who_did_it(clinic: Clinic) -> None:
    for sentence in ("charged 400.00", "already charged 400.00"):
        answer = await handle(clinic, "replay", position="topic/0/1")
        assert [each["sentence"] for each in answer["items"]] == [sentence]
        assert (answer["next"], answer["remaining"], answer["dry_run"]) == (None, 0, False)
    assert (await clinic.charged(GOOD.subject)).text.endswith('"total_price":400.00}')
    letter = await kept(clinic, "topic/0/1")
    assert (letter.state, [(each.event, each.by) for each in letter.history]) == (
        "replayed",
        [("replayed", "anna")] * 2,
    )
    metrics = (await clinic.charges.get("/metrics")).text
    assert 'clinic_events_total{event="replayed"} 2.0' in metrics


async def test_what_fails_again_is_reported_and_remains(clinic: Clinic) -> None:
    answer = await handle(clinic, "replay", all=True)
    assert [each["outcome"] for each in answer["items"]] == ["charged", "failed again"]
    assert answer["remaining"] == 1
    assert (await handle(clinic, "replay", position="topic/0/2"))["remaining"] == 1
    assert (await handle(clinic, "replay", group="mended"))["items"] == []


async def test_discarding_keeps_the_letter_the_reason_and_who_gave_it(clinic: Clinic) -> None:
    answer = await handle(clinic, "discard", group="bad", reason="sent by a test")
    assert ([each["outcome"] for each in answer["items"]], answer["remaining"]) == (["discarded"], 0)
    letter = await kept(clinic, "topic/0/2")
    (entry,) = letter.history
    assert (letter.state, letter.value, entry.by, entry.note) == (
        "discarded",
        b"{",
        "anna",
        "sent by a test",
    )
    again = await handle(clinic, "discard", position="topic/0/2", reason="again")
    assert [each["sentence"] for each in again["items"]] == ["handled already: discarded by anna"]


async def test_a_dry_run_says_so_and_changes_nothing(clinic: Clinic) -> None:
    for what, more in (("replay", {}), ("discard", {"reason": "a test"})):
        answer = await handle(clinic, what, all=True, dry_run=True, **more)
        assert (answer["dry_run"], len(answer["items"]), answer["remaining"]) == (True, 2, 2)
    assert [await kept(clinic, each.position) for each in (MENDED, BAD)] == [MENDED, BAD]


async def test_a_request_handles_a_bounded_number_and_its_answers_lead_through_all(clinic: Clinic) -> None:
    more = [a_letter(position=f"topic/1/{number:03}", group="many") for number in range(BATCH_SIZE + 1)]
    await clinic.financial.dead_letters().add(more)
    first = await handle(clinic, "replay", group="many")
    assert (len(first["items"]), first["remaining"]) == (
        BATCH_SIZE,
        BATCH_SIZE + 1,
    )  # all of them failed again
    second = await handle(clinic, "replay", group="many", after=first["next"])
    assert (len(second["items"]), second["next"]) == (1, None)
    assert positions(first["items"] + second["items"]) == [each.position for each in more]
    rest = await handle(clinic, "discard", group="many", reason="a test")
    assert (len(rest["items"]), rest["remaining"]) == (BATCH_SIZE, 1)


async def test_a_body_that_cannot_be_used_is_a_400_that_names_each_field(clinic: Clinic) -> None:
    one: dict[str, Any] = {"by": "anna", "position": "topic/0/1"}
    for what, body, fields in [
        ("replay", {}, {"by"}),
        ("replay", {"by": "anna"}, {"body"}),
        ("replay", one | {"all": True}, {"body"}),
        ("replay", one | {"group": "bad"}, {"body"}),
        ("replay", {"by": "anna", "all": False}, {"body"}),
        ("replay", one | {"by": ""}, {"by"}),
        ("replay", one | {"by": " \t"}, {"by"}),
        ("replay", one | {"by": "\x1e\x85\ufeff\u2028"}, {"by"}),
        ("replay", one | {"by": "x" * 201}, {"by"}),
        ("replay", one | {"by": None, "dry_run": "yes", "after": 1}, {"by", "dry_run", "after"}),
        ("replay", one | {"position": ["topic/0/1"]}, {"position"}),
        ("replay", one | {"reason": "none is wanted"}, {"reason"}),
        ("replay", {"by": "anna", "all": True, "after": "x"}, {"after"}),
        ("discard", one, {"reason"}),
        ("discard", one | {"reason": ""}, {"reason"}),
        ("discard", one | {"reason": "x" * 2001, "who": "anna"}, {"reason", "who"}),
    ]:
        answer = await clinic.charges.post(f"/dead-letters/{what}/", json=body)
        assert set(wrong_fields(answer)) == fields, body
    assert await kept(clinic, "topic/0/1") == MENDED


async def test_each_field_says_what_would_be_right(clinic: Clinic) -> None:
    async def problems(**body: object) -> dict[str, str]:
        return wrong_fields(await clinic.charges.post("/dead-letters/discard/", json=body))

    assert await problems(position=1, all=1, by=1) == {
        "by": "cannot be used: give a text of 1 to 200 characters",
        "reason": "is missing: give a text of 1 to 2000 characters",
        "position": "cannot be used: give a text or null",
        "all": "cannot be used: give true or false",
    }
    assert "exactly one of position, group" in (await problems(by="anna", reason="a test"))["body"]


async def test_a_position_or_a_group_that_there_is_not_is_a_404_that_names_it(clinic: Clinic) -> None:
    for choice in ({"position": "topic/0/9"}, {"group": "none"}):
        for what, more in (("replay", {}), ("discard", {"reason": "a test"})):
            answer = await clinic.charges.post(
                f"/dead-letters/{what}/", json={"by": "anna", **choice, **more}
            )
            assert next(iter(choice.values())) in problem(answer, 404)["detail"]


async def test_a_wrong_method_is_a_405(clinic: Clinic) -> None:
    for method, path in (
        ("DELETE", "/dead-letters/topic/0/1"),
        ("DELETE", "/dead-letters/"),
        ("PUT", "/dead-letters/replay/"),
    ):
        problem(await clinic.charges.request(method, path), 405)


async def test_a_store_that_does_not_answer_is_a_503_that_says_when_to_ask_again(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path, operator_token=TOKEN))
    clinic.financial.dead_letters.override(Object(UnreachableDeadLetters()))
    async with clinic.running():
        for method, path, body in REQUESTS[:-1]:
            answer = await clinic.charges.request(
                method, path, json=body, headers={"Authorization": f"Bearer {TOKEN}"}
            )
            assert "do not answer" in problem(answer, 503)["detail"]
            assert int(answer.headers["retry-after"]) > 0


async def test_the_token_is_never_logged(tmp_path: Path) -> None:
    written, before = Written(), structlog.get_config()
    try:
        configure_logging(load({"CLINIC_LOG_LEVEL": "debug", "CLINIC_LOG_FORMAT": "json"}), written)
        async with Clinic(settings("memory", tmp_path, operator_token=TOKEN)).running() as clinic:
            await clinic.financial.dead_letters().add([MENDED])
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answers: list[httpx.Response] = [
                await clinic.charges.request(method, path, json=body, headers=headers)
                for method, path, body in REQUESTS
            ]
    finally:
        structlog.configure(**before)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["by"], line["position"]) for line in lines if line["event"] == "replayed"] == [
        ("anna", "topic/0/1")
    ]
    assert TOKEN not in written.getvalue()
    assert not [answer for answer in answers if TOKEN in answer.text]


async def test_the_history_names_who_did_what_with_which_letter_in_pages(clinic: Clinic) -> None:
    clinic.clock.move(seconds=1)
    await handle(clinic, "discard", position=BAD.position, reason="a test")
    clinic.clock.move(seconds=1)
    await handle(clinic, "replay", position=MENDED.position)
    first = (await clinic.charges.get("/dead-letters/history/?limit=1")).json()
    rest = (await clinic.charges.get(f"/dead-letters/history/?limit=5&after={first['next']}")).json()
    items = first["items"] + rest["items"]
    shown = {(each["event"], each["by"], each["position"], each["note"]) for each in items}
    assert shown == {
        ("replayed", "anna", MENDED.position, "charged 400.00"),
        ("discarded", "anna", BAD.position, "a test"),
        ("discarded", "bob", DONE.position, "a test"),
    }
    assert [each["at"] for each in items] == sorted((each["at"] for each in items), reverse=True)
    assert (len(first["items"]), rest["next"]) == (1, None)


async def test_a_place_in_the_history_that_is_none_is_named(clinic: Clinic) -> None:
    assert "after" in wrong_fields(await clinic.charges.get("/dead-letters/history/?after=nowhere"))
