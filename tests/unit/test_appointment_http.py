"""The appointment service's part of the contract, over HTTP."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from dependency_injector.providers import Object
from support.apps import (
    NIL,
    NOBODY,
    PATIENT,
    PHYSICIAN,
    Clinic,
    UnreachableAppointments,
    problem,
    settings,
    wrong_fields,
)

from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher
from clinic.domain.errors import Unavailable
from clinic.domain.messaging.messages import Message, PublishResult
from clinic.domain.money import Money
from clinic.testing.builders import ONE_O_CLOCK

KEY = '"8e03978e-40d5-43dd-bc93-6894a57f9324"'
NO_APPOINTMENTS = (NOBODY, NIL, "abc", "1", "84ab6121-c4a8-4684-8cc2", "84ab6121-c4a8-4684-8cc2-b03024ec0f1z")


@pytest.fixture(params=["memory", "sqlite"])
async def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings(request.param, tmp_path)).running() as clinic:
        yield clinic


@pytest.fixture
async def in_memory(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        yield clinic


async def test_a_new_appointment_is_answered_with_exactly_the_documented_bytes(clinic: Clinic) -> None:
    answer = await clinic.appointments.post("/", json={"physician_id": PHYSICIAN, "patient_id": PATIENT})
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    its_id = answer.json()["id"]
    assert answer.headers["location"] == f"/{its_id}/"
    assert answer.text == (
        f'{{"id":"{its_id}","start_date":"2020-12-01 13:00:00","end_date":null,'
        f'"physician_id":"{PHYSICIAN}","patient_id":"{PATIENT}","price":200.00}}'
    )


async def test_the_id_is_a_uuid_in_its_usual_form_and_new_each_time(clinic: Clinic) -> None:
    ids = {await clinic.start() for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", each) for each in ids)


async def test_where_location_points_the_same_appointment_is_shown(clinic: Clinic) -> None:
    started = await clinic.appointments.post("/", json={"physician_id": PHYSICIAN, "patient_id": PATIENT})
    shown = await clinic.appointments.get(started.headers["location"])
    assert (shown.status_code, shown.content) == (200, started.content)


async def test_the_moment_of_a_start_is_cut_to_the_whole_second(clinic: Clinic) -> None:
    clinic.clock.moment = ONE_O_CLOCK + timedelta(microseconds=999_999)
    shown = await clinic.appointments.get(f"/{await clinic.start()}/")
    assert shown.json()["start_date"] == "2020-12-01 13:00:00"


@pytest.mark.parametrize(
    ("price", "printed"), [("0", "0.00"), ("99.9", "99.90"), ("9999999999999.99", "9999999999999.99")]
)
async def test_a_price_is_a_number_with_two_decimals_whatever_it_is(
    tmp_path: Path, price: str, printed: str
) -> None:
    async with Clinic(settings("sqlite", tmp_path, hourly_price=Money(price))).running() as clinic:
        shown = await clinic.appointments.get(f"/{await clinic.start()}/")
    assert shown.text.endswith(f',"price":{printed}}}')


async def test_finishing_answers_the_same_shape_with_its_end(clinic: Clinic) -> None:
    its_id = await clinic.start()
    clinic.clock.move(hours=1)
    answer = await clinic.finish(its_id)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        f'{{"id":"{its_id}","start_date":"2020-12-01 13:00:00","end_date":"2020-12-01 14:00:00",'
        f'"physician_id":"{PHYSICIAN}","patient_id":"{PATIENT}","price":200.00}}'
    )
    assert (await clinic.appointments.get(f"/{its_id}/")).content == answer.content


async def test_finishing_again_answers_the_first_end_and_saves_no_second_event(clinic: Clinic) -> None:
    its_id = await clinic.start()
    first = await clinic.finish(its_id)
    clinic.clock.move(hours=5)
    again = await clinic.finish(its_id)
    assert (again.status_code, again.content) == (200, first.content)
    assert (await clinic.charged(its_id)).json()["total_price"] == 200.00
    other = await clinic.start()
    await clinic.finish(other)
    await clinic.charged(other)  # what was published before it has arrived by now
    assert await counted(clinic) == {"finished": 2, "published": 2, "charged": 2}


async def test_fifty_who_finish_at_once_get_one_end_one_event_and_one_charge(clinic: Clinic) -> None:
    its_id = await clinic.start()
    answers = await asyncio.gather(*(clinic.finish(its_id) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    await clinic.charged(its_id)
    other = await clinic.start()
    await clinic.finish(other)
    await clinic.charged(other)
    assert await counted(clinic) == {"finished": 2, "published": 2, "charged": 2}
    assert len((await clinic.charges.get("/")).json()["items"]) == 2


async def test_with_a_clock_that_is_behind_the_end_is_the_start(clinic: Clinic) -> None:
    its_id = await clinic.start()
    clinic.clock.move(minutes=-5)
    assert (await clinic.finish(its_id)).json()["end_date"] == "2020-12-01 13:00:00"
    assert (await clinic.charged(its_id)).json()["total_price"] == 200.00


async def test_a_body_of_a_finish_is_ignored_whatever_it_is(in_memory: Clinic) -> None:
    for content_type, body in [
        ("application/json", b'{"end_date": "2031-01-01 00:00:00", "price": 1}'),
        ("application/json", b"{not json"),
        ("application/json", b""),
        ("text/html", b"<p>"),
        ("multipart/form-data; boundary=x", b"--y"),
        ("application/x-www-form-urlencoded", b"a=%ff"),
        ("application/msgpack", b"\xc1"),
        (";;", b"\x00\xff"),
        (None, b"\xff\xfe"),
        ("application/json", b"x" * 100_000),
    ]:
        its_id = await in_memory.start()
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = await in_memory.appointments.post(f"/{its_id}/", content=body, headers=headers)
        assert answer.status_code == 200, (content_type, body)
        assert answer.json()["end_date"] == "2020-12-01 13:00:00"
        assert answer.json()["price"] == 200.00


async def test_what_a_body_says_beside_the_two_ids_never_becomes_a_part_of_the_appointment(
    in_memory: Clinic,
) -> None:
    body = {"physician_id": PHYSICIAN, "patient_id": PATIENT, "price": 1, "id": NOBODY}
    answer = await in_memory.appointments.post("/", json=body)
    assert set(wrong_fields(answer)) == {"price", "id"}
    assert await in_memory.all_appointments() == []


async def test_an_id_that_names_nothing_is_a_404(in_memory: Clinic) -> None:
    for its_id in NO_APPOINTMENTS:
        for method in ("GET", "POST"):
            for slash in ("", "/"):
                problem(await in_memory.appointments.request(method, f"/{its_id}{slash}"), 404)
    assert await in_memory.all_appointments() == []


async def test_an_unknown_id_is_named_in_the_problem(clinic: Clinic) -> None:
    assert NOBODY in problem(await clinic.appointments.get(f"/{NOBODY}/"), 404)["detail"]


async def test_every_route_answers_with_and_without_its_trailing_slash(clinic: Clinic) -> None:
    its_id = await clinic.start()
    finished = [await clinic.appointments.post(f"/{its_id}{slash}") for slash in ("", "/")]
    shown = [await clinic.appointments.get(f"/{its_id}{slash}") for slash in ("", "/")]
    assert {(answer.status_code, answer.content) for answer in finished + shown} == {
        (200, finished[0].content)
    }


async def test_the_list_is_empty_at_first(clinic: Clinic) -> None:
    answer = await clinic.appointments.get("/")
    assert (answer.status_code, answer.text) == (200, '{"items":[],"next":null}')


async def test_the_list_shows_the_newest_first_each_in_the_shape_of_one(clinic: Clinic) -> None:
    ids = [await clinic.start() for _ in range(3)]
    await clinic.finish(ids[1])
    listed = (await clinic.appointments.get("/")).json()
    assert list(listed) == ["items", "next"]
    assert [each["id"] for each in listed["items"]] == ids[::-1]
    for each in listed["items"]:
        shown = await clinic.appointments.get(f"/{each['id']}/")
        assert list(each.items()) == list(shown.json().items())


async def test_a_page_holds_twenty_where_nobody_says_how_many(clinic: Clinic) -> None:
    ids = [await clinic.start() for _ in range(21)]
    first = (await clinic.appointments.get("/")).json()
    assert [each["id"] for each in first["items"]] == ids[:0:-1]
    rest = (await clinic.appointments.get("/", params={"after": first["next"]})).json()
    assert ([each["id"] for each in rest["items"]], rest["next"]) == (ids[:1], None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_cursors_lead_through_everything_once_in_order_even_as_more_is_started(
    clinic: Clinic, limit: int
) -> None:
    ids = [await clinic.start() for _ in range(7)]
    seen: list[str] = []
    after: str | None = None
    while True:
        page = (
            await clinic.appointments.get("/", params={"limit": limit} | ({"after": after} if after else {}))
        ).json()
        assert 0 < len(page["items"]) <= limit
        seen += [each["id"] for each in page["items"]]
        after = page["next"]
        if after is None:
            break
        await clinic.start()
    assert seen == ids[::-1]


async def test_a_cursor_can_stand_in_an_address_as_it_is(clinic: Clinic) -> None:
    for _ in range(2):
        await clinic.start()
    cursor = (await clinic.appointments.get("/?limit=1")).json()["next"]
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)


async def test_the_list_can_be_filtered_by_each_condition_and_by_all_together(clinic: Clinic) -> None:
    a = await clinic.start(PHYSICIAN, PATIENT)
    b = await clinic.start(PHYSICIAN, NOBODY)
    c = await clinic.start(NOBODY, PATIENT)
    await clinic.finish(a)
    await clinic.finish(c)
    for query, wanted in {
        f"physician_id={PHYSICIAN}": [b, a],
        f"patient_id={PATIENT}": [c, a],
        "finished=true": [c, a],
        "finished=false": [b],
        f"physician_id={PHYSICIAN}&patient_id={PATIENT}&finished=true": [a],
        f"physician_id={PHYSICIAN}&finished=false": [b],
        f"physician_id={PHYSICIAN.upper()}": [b, a],
        f"physician_id={NIL}": [],
    }.items():
        listed = (await clinic.appointments.get(f"/?{query}")).json()
        assert ([each["id"] for each in listed["items"]], listed["next"]) == (wanted, None), query


async def test_a_filter_holds_from_page_to_page(clinic: Clinic) -> None:
    wanted = []
    for _ in range(3):
        wanted.append(await clinic.start(PHYSICIAN, PATIENT))
        await clinic.start(NOBODY, PATIENT)
    query = f"/?limit=2&physician_id={PHYSICIAN}"
    first = (await clinic.appointments.get(query)).json()
    second = (await clinic.appointments.get(f"{query}&after={first['next']}")).json()
    assert [each["id"] for each in first["items"] + second["items"]] == wanted[::-1]
    assert second["next"] is None


class Away(MemoryPublisher):
    """A transport that does not answer."""

    async def publish(self, batch: Sequence[Message]) -> Sequence[PublishResult]:
        raise Unavailable(f"{len(batch)} events cannot be published")


async def test_what_is_late_to_be_published_is_listed_the_longest_waiting_first(tmp_path: Path) -> None:
    clinic = Clinic(settings("sqlite", tmp_path))
    log = MemoryLog()
    clinic.appointment.publisher.override(Object(Away(log, clinic.clock)))
    async with clinic.running():
        finished = []
        for _ in range(3):
            finished.append(await clinic.start())
            await clinic.finish(finished[-1])
            clinic.clock.move(seconds=30)
        await clinic.start()

        late = (await clinic.appointments.get("/?late=30&limit=1")).json()
        assert [each["id"] for each in late["items"]] == finished[:1]
        rest = (await clinic.appointments.get(f"/?late=30&after={late['next']}")).json()
        assert ([each["id"] for each in rest["items"]], rest["next"]) == (finished[1:2], None)
        assert (await clinic.appointments.get("/?late=91")).json() == {"items": [], "next": None}
        assert (await clinic.appointments.get(f"/?after={late['next']}")).status_code == 400


async def test_what_is_published_is_not_late(in_memory: Clinic) -> None:
    its_id = await in_memory.start()
    await in_memory.finish(its_id)
    await in_memory.charged(its_id)
    in_memory.clock.move(hours=1)
    assert (await in_memory.appointments.get("/?late=1")).json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "100000000",
        "1.5",
        "30.0",
        "1e3",
        "030",
        "3_0",
        "%2B30",
        "soon",
        "",
        "null",
        "true",
        "%D9%A3",
    ],
)
async def test_a_lateness_that_is_no_whole_number_of_seconds_in_bounds_is_a_400(
    in_memory: Clinic, text: str
) -> None:
    problem = "cannot be used: give a whole number of seconds from 1 to 99999999"
    assert wrong_fields(await in_memory.appointments.get(f"/?late={text}")) == {"late": problem}


async def test_the_list_of_what_is_late_takes_no_other_filter(in_memory: Clinic) -> None:
    for other in (f"physician_id={PHYSICIAN}", f"patient_id={NIL}", "finished=true", "finished=false"):
        named = wrong_fields(await in_memory.appointments.get(f"/?late=30&{other}"))
        assert named == {"late": "is a list of its own: give it with limit and after only"}


async def test_a_query_that_cannot_be_read_is_a_400_that_names_each_field(in_memory: Clinic) -> None:
    for query, fields in {
        "limit=0": {"limit"},
        "limit=101": {"limit"},
        "limit=-1": {"limit"},
        "limit=ten": {"limit"},
        "limit=1.5": {"limit"},
        "limit=": {"limit"},
        "limit=99999999999999999999999": {"limit"},
        "limit=%ff": {"limit"},
        "after=garbage": {"after"},
        "after=": {"after"},
        "after=%00": {"after"},
        "after=%C3%A9": {"after"},
        "after=" + "x" * 5000: {"after"},
        "physician_id=nobody": {"physician_id"},
        "patient_id=": {"patient_id"},
        "finished=perhaps": {"finished"},
        "limit=0&patient_id=x&finished=x": {"limit", "patient_id", "finished"},
    }.items():
        assert set(wrong_fields(await in_memory.appointments.get(f"/?{query}"))) == fields, query


async def test_a_cursor_of_the_other_list_is_no_cursor_here(in_memory: Clinic) -> None:
    for _ in range(2):
        its_id = await in_memory.start()
        await in_memory.finish(its_id)
        await in_memory.charged(its_id)
    foreign = (await in_memory.charges.get("/?limit=1")).json()["next"]
    own = (await in_memory.appointments.get("/?limit=1")).json()["next"]
    assert set(wrong_fields(await in_memory.appointments.get(f"/?after={foreign}"))) == {"after"}
    assert set(wrong_fields(await in_memory.charges.get(f"/?after={own}"))) == {"after"}


async def test_a_finish_whose_answer_was_lost_is_safe_to_repeat(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    store = UnreachableAppointments(clinic.clock, 3.0)
    store.kept_first = True
    clinic.appointment.appointments.override(Object(store))
    clinic.appointment.outbox.override(Object(store))
    async with clinic.running():
        store.reachable = True
        its_id = await clinic.start()
        store.reachable = False
        lost = await clinic.finish(its_id)
        problem(lost, 503)
        store.reachable = True
        clinic.clock.move(hours=3)
        again = await clinic.finish(its_id)
        assert (again.status_code, again.json()["end_date"]) == (200, "2020-12-01 13:00:00")
        assert (await clinic.charged(its_id)).json()["total_price"] == 200.00
        assert len((await clinic.charges.get("/")).json()["items"]) == 1


async def test_a_start_answered_with_503_may_have_started(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    store = UnreachableAppointments(clinic.clock, 3.0)
    store.kept_first = True
    clinic.appointment.appointments.override(Object(store))
    clinic.appointment.outbox.override(Object(store))
    async with clinic.running():
        problem(
            await clinic.appointments.post("/", json={"physician_id": PHYSICIAN, "patient_id": PATIENT}), 503
        )
        store.reachable = True
        assert len(await clinic.all_appointments()) == 1


async def post(clinic: Clinic, *keys: str, patient: str = PATIENT, **more: str) -> httpx.Response:
    headers = [(b"Idempotency-Key", key.encode()) for key in keys]
    body = {"physician_id": PHYSICIAN, "patient_id": patient} | more
    return await clinic.appointments.post("/", headers=headers, json=body)


async def test_a_start_that_is_repeated_under_its_key_is_answered_as_it_started(clinic: Clinic) -> None:
    first = await post(clinic, KEY)
    clinic.clock.move(hours=1)
    await clinic.finish(first.json()["id"])
    clinic.clock.move(hours=24 * 365)
    again = await post(clinic, KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    (kept,) = await clinic.all_appointments()
    assert kept["end_date"] == "2020-12-01 14:00:00"


async def test_a_body_that_means_the_same_is_the_same(in_memory: Clinic) -> None:
    first = await post(in_memory, KEY)
    body = f' {{"patient_id": "{PATIENT.upper()}", "physician_id": "{PHYSICIAN}"}}'.encode()
    headers = {"Idempotency-Key": KEY, "Content-Type": "application/json"}
    again = await in_memory.appointments.post("/", content=body, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)


async def test_another_body_under_a_key_is_a_422_and_starts_nothing(clinic: Clinic) -> None:
    first = await post(clinic, KEY)
    document = problem(await post(clinic, KEY, patient=str(uuid4())), 422)
    assert document["type"] == "urn:clinic:problem:unprocessable-content"
    assert "this key started another appointment" in document["detail"]
    assert [each["id"] for each in await clinic.all_appointments()] == [first.json()["id"]]


async def test_fifty_starts_under_one_key_at_once_are_one_appointment(clinic: Clinic) -> None:
    answers = await asyncio.gather(*(post(clinic, KEY) for _ in range(50)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert len(await clinic.all_appointments()) == 1


async def test_without_a_key_each_request_starts_an_appointment(clinic: Clinic) -> None:
    assert len({(await post(clinic)).json()["id"] for _ in range(3)}) == 3


@pytest.mark.parametrize(
    ("one", "same"),
    [('"a"', "a"), ("x" * 255, f'"{"x" * 255}"'), (r'"a\\b\"c"', 'a\\b"c'), ("!~", '"!~"')],
)
async def test_a_key_is_the_same_with_and_without_quotes(in_memory: Clinic, one: str, same: str) -> None:
    first, again = [await post(in_memory, key) for key in (one, same)]
    assert (first.status_code, first.content) == (201, again.content)
    assert (await post(in_memory, f"another-{'k' * 200}")).content != first.content


@pytest.mark.parametrize(
    "keys",
    [
        ("",), ('""',), ("x" * 256,), (f'"{"x" * 256}"',), ("a b",), ('"a b"',), ("a\tb",), ('"open',),
        ('"',), ('"a"b"',), ('"a";p=1',), (r'"a\x"',), ("Schlüssel",), ("a", "a"), ("a", "b"),
    ],
    ids=lambda keys: "+".join(keys)[:12],
)  # fmt: skip
async def test_a_key_that_cannot_be_used_is_a_400_that_says_what_is_right(
    in_memory: Clinic, keys: tuple[str, ...]
) -> None:
    wrong = wrong_fields(await post(in_memory, *keys))
    assert wrong.keys() == {"Idempotency-Key"}
    assert "give it once, with 1 to 255 visible characters, like" in wrong["Idempotency-Key"]
    assert await in_memory.all_appointments() == []


async def test_a_start_whose_answer_was_lost_is_safe_to_repeat_under_its_key(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    store = UnreachableAppointments(clinic.clock, 3.0)
    store.kept_first = True
    clinic.appointment.appointments.override(Object(store))
    clinic.appointment.outbox.override(Object(store))
    async with clinic.running():
        problem(await post(clinic, KEY), 503)
        store.reachable = True
        clinic.clock.move(hours=3)
        again = await post(clinic, KEY)
        assert (again.status_code, again.json()["start_date"]) == (201, "2020-12-01 13:00:00")
        assert len(await clinic.all_appointments()) == 1


async def counted(clinic: Clinic) -> dict[str, int]:
    """What both services have counted, by name, once every finish is known to be published."""
    async with asyncio.timeout(10):
        while True:
            text = (await clinic.appointments.get("/metrics")).text + (
                await clinic.charges.get("/metrics")
            ).text
            rows = re.findall(r'^clinic_events_total\{event="([^"]*)"\} (.*)$', text, re.MULTILINE)
            found = {what: int(float(count)) for what, count in rows}
            if found.get("published", 0) >= found.get("finished", 0):
                return found
            await asyncio.sleep(
                0
            )  # a request in this process is answered without a pause, and the relay would never go on


async def test_what_was_opened_long_ago_can_be_listed(clinic: Clinic) -> None:
    forgotten = await clinic.start()
    await clinic.finish(await clinic.start())
    clinic.clock.move(hours=1)
    await clinic.start()
    for moment in ("2020-12-01 13:00:01", "2020-12-01T13:00:01Z", "2020-12-01T14:00:00%2B00:00"):
        answer = await clinic.appointments.get(f"/?finished=false&started_before={moment}")
        assert [each["id"] for each in answer.json()["items"]] == [forgotten], moment
    nothing = await clinic.appointments.get("/?finished=false&started_before=2020-12-01 13:00:00")
    assert nothing.json()["items"] == []


async def test_no_list_asks_all_of_history_when_it_started(clinic: Clinic) -> None:
    for finished in ("", "finished=true&"):
        answer = await clinic.appointments.get(f"/?{finished}started_before=2020-12-01 13:00:00")
        assert wrong_fields(answer) == {"started_before": "is for what is open: give finished=false, too"}
