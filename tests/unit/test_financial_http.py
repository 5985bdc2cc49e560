"""The financial service's part of the contract, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from dependency_injector.providers import Object
from support.apps import (
    NIL,
    NOBODY,
    PATIENT,
    PHYSICIAN,
    Clinic,
    client_of,
    exactly,
    problem,
    settings,
    wrong_fields,
)

from clinic.adapters.charge_waiters import MAX_WAITERS
from clinic.adapters.memory.charges import MemoryCharges
from clinic.domain.financial.model import Charge
from clinic.domain.money import Money
from clinic.entrypoints.web import financial


@pytest.fixture(params=["memory", "sqlite"])
async def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings(request.param, tmp_path)).running() as clinic:
        yield clinic


class WatchedCharges(MemoryCharges):
    """Tells how long each request wants to wait, and when somebody does. Its seconds are as short as one
    likes.
    """

    def __init__(self, second: float = 1) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._second = second
        self._news = asyncio.Event()

    async def wait_for(self, appointment_id: UUID, within: float) -> Charge:
        self.waits.append(within)
        self._news.set()
        return await super().wait_for(appointment_id, within * self._second)

    async def wait_for_waiters(self, count: int) -> None:
        while len(self.waits) < count:
            self._news.clear()
            await self._news.wait()


@pytest.fixture
def watched() -> WatchedCharges:
    return WatchedCharges()


@pytest.fixture
async def waiting(tmp_path: Path, watched: WatchedCharges) -> AsyncIterator[Clinic]:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.financial.charges.override(Object(watched))
    async with clinic.running():
        yield clinic


async def an_hour(clinic: Clinic, physician_id: str = PHYSICIAN, patient_id: str = PATIENT) -> str:
    """An appointment that has lasted an hour and is charged."""
    its_id = await clinic.start(physician_id, patient_id)
    clinic.clock.move(hours=1)
    await clinic.finish(its_id)
    await clinic.charged(its_id)
    return its_id


async def test_from_one_to_two_oclock_at_200_is_400_in_exactly_the_documented_bytes(clinic: Clinic) -> None:
    its_id = await an_hour(clinic)
    answer = await clinic.charges.get(f"/{its_id}/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.text == f'{{"appointment_id":"{its_id}","total_price":400.00}}'
    assert "preference-applied" not in answer.headers


async def test_the_total_is_exact_where_a_float_would_not_be(tmp_path: Path) -> None:
    async with Clinic(
        settings("sqlite", tmp_path, pricing="pro-rata", hourly_price=Money("0.29"))
    ).running() as clinic:
        its_id = await clinic.start()
        clinic.clock.move(hours=3)
        await clinic.finish(its_id)
        answer = await clinic.charged(its_id)
    assert answer.text.endswith('"total_price":0.87}')


async def test_the_price_of_the_start_is_charged_and_the_policy_of_the_setting_is_used(
    tmp_path: Path,
) -> None:
    async with Clinic(
        settings("memory", tmp_path, pricing="whole-hours", hourly_price=Money("10.00"))
    ).running() as clinic:
        its_id = await an_hour(clinic)
        (charge,) = exactly(await clinic.charges.get("/"))["items"]
    assert (charge["appointment_id"], charge["pricing"], charge["total_price"]) == (
        its_id,
        "whole-hours",
        Decimal("10.00"),
    )


async def test_there_is_no_charge_before_the_appointment_is_finished(clinic: Clinic) -> None:
    its_id = await clinic.start()
    for slash in ("", "/"):
        problem(await clinic.charges.get(f"/{its_id}{slash}"), 404)


async def test_a_charge_is_shown_with_and_without_the_trailing_slash(clinic: Clinic) -> None:
    its_id = await an_hour(clinic)
    with_slash, without = await clinic.charges.get(f"/{its_id}/"), await clinic.charges.get(f"/{its_id}")
    assert (with_slash.status_code, with_slash.content) == (without.status_code, without.content)


async def test_an_id_that_has_no_charge_is_a_404(clinic: Clinic) -> None:
    for its_id in (NOBODY, NIL, "abc", "84ab6121-c4a8-4684-8cc2", "84ab6121-c4a8-4684-8cc2-b03024ec0f1z"):
        for prefer in ({}, {"Prefer": "wait=0"}):
            for slash in ("", "/"):
                problem(await clinic.charges.get(f"/{its_id}{slash}", headers=prefer), 404)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (["wait=5"], 5),
        (["WAIT=5"], 5),
        (["Wait=05"], 5),
        (['wait="5"'], 5),
        (["wait = 5"], 5),
        (["wait=5; foo=bar"], 5),
        (['wait=5;foo="bar"'], 5),
        (["respond-async, wait=5"], 5),
        (["respond-async,wait=5,handling=lenient"], 5),
        (["wait=5, wait=7"], 5),
        (["respond-async", "wait=5"], 5),
        (["wait=5", "wait=7"], 5),
        (["wait=30"], 30),
        (["wait=31"], 30),
        (["wait=99999999"], 30),
    ],
)
async def test_a_client_that_prefers_to_wait_waits_that_long_and_the_answer_says_so(
    waiting: Clinic, watched: WatchedCharges, prefer: list[str], seconds: int
) -> None:
    its_id = await an_hour(waiting)
    watched.waits.clear()
    answer = await waiting.charges.get(f"/{its_id}/", headers=[("Prefer", each) for each in prefer])
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == f"wait={seconds}"
    assert list(answer.json()) == ["appointment_id", "total_price"]
    assert watched.waits == [seconds]


@pytest.mark.parametrize("prefer", ["wait=0", 'wait="0"', "wait=00"])
async def test_to_wait_for_zero_seconds_is_not_to_wait(
    waiting: Clinic, watched: WatchedCharges, prefer: str
) -> None:
    answer = await waiting.charges.get(f"/{NOBODY}/", headers={"Prefer": prefer})
    problem(answer, 404)
    assert answer.headers["preference-applied"] == "wait=0"
    assert watched.waits == []


async def test_a_preference_that_cannot_be_read_is_ignored(waiting: Clinic, watched: WatchedCharges) -> None:
    for prefer in (
        b"",
        b",",
        b";",
        b"=",
        b"wait",
        b"wait=",
        b"wait=-1",
        b"wait=1.5",
        b"wait=soon",
        b"wait=\xb2",
        b"wait=1 2",
        b"waits=5",
    ):
        answer = await waiting.charges.get(f"/{NOBODY}/", headers=[(b"Prefer", prefer)])
        problem(answer, 404)
        assert "preference-applied" not in answer.headers, prefer
    assert watched.waits == []


async def test_when_the_time_is_over_the_answer_is_404_and_says_how_long_it_was(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.financial.charges.override(Object(WatchedCharges(second=0.001)))
    async with clinic.running():
        answer = await clinic.charges.get(f"/{NOBODY}/", headers={"Prefer": "wait=99"})
    assert NOBODY in problem(answer, 404)["detail"]
    assert answer.headers["preference-applied"] == "wait=30"


async def test_who_waits_is_answered_when_the_charge_arrives(
    waiting: Clinic, watched: WatchedCharges
) -> None:
    its_id = await waiting.start()
    asking = asyncio.create_task(waiting.charged(its_id))
    await watched.wait_for_waiters(1)
    problem(await waiting.charges.get(f"/{its_id}/"), 404)
    waiting.clock.move(hours=1)
    await waiting.finish(its_id)
    answer = await asking
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=30")
    assert answer.text == f'{{"appointment_id":"{its_id}","total_price":400.00}}'


async def test_many_who_wait_for_many_charges_each_get_their_own(
    waiting: Clinic, watched: WatchedCharges
) -> None:
    ids = [await waiting.start() for _ in range(10)]
    asking = [asyncio.create_task(waiting.charged(its_id)) for its_id in ids * 10]
    await watched.wait_for_waiters(100)
    for its_id in ids:
        await waiting.finish(its_id)
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["appointment_id"] for answer in answers] == ids * 10


async def test_when_the_service_stops_all_who_wait_are_answered_503(
    waiting: Clinic, watched: WatchedCharges
) -> None:
    asking = [asyncio.create_task(waiting.charged(str(uuid4()))) for _ in range(20)]
    await watched.wait_for_waiters(20)
    waiting.financial_lifecycle.stop()
    for answer in await asyncio.gather(*asking):
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0


async def test_who_comes_to_wait_while_the_service_stops_is_answered_503_too(waiting: Clinic) -> None:
    waiting.financial_lifecycle.stop()
    problem(await waiting.charged(NOBODY), 503)


async def test_beyond_the_limit_of_waiters_a_request_must_come_again(
    waiting: Clinic, watched: WatchedCharges
) -> None:
    crowd = [asyncio.create_task(watched.wait_for(UUID(NOBODY), 30)) for _ in range(MAX_WAITERS)]
    await watched.wait_for_waiters(MAX_WAITERS)
    answer = await waiting.charged(NOBODY)
    problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    problem(await waiting.charges.get(f"/{NOBODY}/"), 404)
    for each in crowd:
        each.cancel()
    await asyncio.wait(crowd)
    its_id = await an_hour(waiting)
    assert (await waiting.charged(its_id)).status_code == 200


async def test_the_list_explains_each_charge(clinic: Clinic) -> None:
    its_id = await an_hour(clinic)
    answer = await clinic.charges.get("/")
    assert answer.text == (
        f'{{"items":[{{"appointment_id":"{its_id}","total_price":400.00,"price":200.00,"hours":2.0,'
        '"pricing":"hours-begun","start_date":"2020-12-01 13:00:00","end_date":"2020-12-01 14:00:00",'
        '"charged_at":"2020-12-01 14:00:00"}],"next":null}'
    )


async def test_the_list_is_empty_at_first(clinic: Clinic) -> None:
    assert (await clinic.charges.get("/")).text == '{"items":[],"next":null}'


@pytest.mark.parametrize("limit", [1, 2, 4, 100])
async def test_cursors_lead_through_all_charges_once_the_newest_first(clinic: Clinic, limit: int) -> None:
    ids = [await an_hour(clinic) for _ in range(3)]
    at_once = [await clinic.start() for _ in range(2)]
    for its_id in at_once:  # two of the same moment
        await clinic.finish(its_id)
        await clinic.charged(its_id)
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": limit}
    while True:
        page = (await clinic.charges.get("/", params=query)).json()
        assert 0 < len(page["items"]) <= limit
        seen += [each["appointment_id"] for each in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert sorted(seen[:2]) == sorted(at_once)
    assert seen[2:] == ids[::-1]


async def test_a_page_holds_twenty_where_nobody_says_how_many(tmp_path: Path) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        ids = [await an_hour(clinic) for _ in range(21)]
        page = (await clinic.charges.get("/")).json()
    assert [each["appointment_id"] for each in page["items"]] == ids[:0:-1]
    assert page["next"]


async def test_the_list_can_be_filtered_by_each_condition_and_by_all_together(clinic: Clinic) -> None:
    a = await an_hour(clinic, PHYSICIAN, PATIENT)  # charged at 14:00, the next ones an hour later each
    b = await an_hour(clinic, PHYSICIAN, NOBODY)
    c = await an_hour(clinic, NOBODY, PATIENT)
    for query, wanted in {
        f"physician_id={PHYSICIAN}": [b, a],
        f"patient_id={PATIENT}": [c, a],
        "charged_from=2020-12-01 15:00:00": [c, b],
        "charged_to=2020-12-01 15:00:00": [a],
        "charged_from=2020-12-01T15:00:00Z&charged_to=2020-12-01T16:00:00Z": [b],
        "charged_from=2020-12-01T17:00:00%2B02:00&charged_to=2020-12-01T10:30:00-05:00": [b],
        "charged_from=2020-12-01 16:00:01": [],
        f"physician_id={PHYSICIAN}&patient_id={NOBODY}&charged_from=2020-12-01 14:00:00"
        "&charged_to=2020-12-02 00:00:00": [b],
    }.items():
        listed = (await clinic.charges.get(f"/?{query}")).json()
        assert ([each["appointment_id"] for each in listed["items"]], listed["next"]) == (wanted, None), query


async def test_a_filter_holds_from_page_to_page(clinic: Clinic) -> None:
    ids = [await an_hour(clinic, PHYSICIAN if number % 2 else NOBODY) for number in range(6)]
    query = f"/?limit=2&physician_id={PHYSICIAN}&charged_from=2020-12-01 14:00:00"
    first = (await clinic.charges.get(query)).json()
    second = (await clinic.charges.get(f"{query}&after={first['next']}")).json()
    assert [each["appointment_id"] for each in first["items"] + second["items"]] == ids[5::-2]
    assert second["next"] is None


async def test_a_query_that_cannot_be_read_is_a_400_that_names_each_field(clinic: Clinic) -> None:
    for query, fields in {
        "limit=0": {"limit"},
        "limit=101": {"limit"},
        "limit=x": {"limit"},
        "after=garbage": {"after"},
        "after=": {"after"},
        "physician_id=x": {"physician_id"},
        "patient_id=x": {"patient_id"},
        "charged_from=yesterday": {"charged_from"},
        "charged_from=": {"charged_from"},
        "charged_from=2020-02-30 13:00:00": {"charged_from"},
        "charged_to=2020-13-01 13:00:00": {"charged_to"},
        "charged_from=0001-01-01T00:00:00%2B14:00": {"charged_from"},
        "charged_to=9999-12-31T23:59:59-14:00": {"charged_to"},
        "charged_from=x&charged_to=y&limit=0&physician_id=z": {
            "charged_from",
            "charged_to",
            "limit",
            "physician_id",
        },
    }.items():
        assert set(wrong_fields(await clinic.charges.get(f"/?{query}"))) == fields, query


@pytest.mark.parametrize("query", ["charged_from=0001-01-01 00:00:00", "charged_to=9999-12-31 23:59:59"])
async def test_the_first_and_the_last_of_all_dates_can_be_asked_for(clinic: Clinic, query: str) -> None:
    its_id = await an_hour(clinic)
    assert [each["appointment_id"] for each in (await clinic.charges.get(f"/?{query}")).json()["items"]] == [
        its_id
    ]


async def test_what_was_answered_before_a_restart_is_answered_after_it(tmp_path: Path) -> None:
    async with Clinic(settings("sqlite", tmp_path)).running() as before:
        its_id = await an_hour(before)
        asked = [f"/{its_id}/", "/"]
        appointments = [(await before.appointments.get(path)).content for path in asked]
        charges = [(await before.charges.get(path)).content for path in asked]
    async with Clinic(settings("sqlite", tmp_path)).running() as after:
        assert [(await after.appointments.get(path)).content for path in asked] == appointments
        assert [(await after.charges.get(path)).content for path in asked] == charges


async def test_a_wait_ends_as_soon_as_its_client_leaves(tmp_path: Path) -> None:
    clinic = Clinic(settings("memory", tmp_path))
    app: Any = financial.create_app(clinic.financial, clinic.financial_lifecycle)
    said = asyncio.Queue[dict[str, Any]]()
    said.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    said.put_nowait({"type": "http.disconnect"})

    async def send(_: Any) -> None:
        return None

    path = f"/{NOBODY}/"
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"prefer", b"wait=30")],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": None,
        "server": None,
    }
    async with client_of(app):
        await asyncio.wait_for(app(scope, said.get, send), 10)
