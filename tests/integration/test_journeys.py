"""What a person does over HTTP while services come and go."""

import asyncio
import json
import signal
from collections.abc import Callable
from decimal import Decimal
from uuid import uuid4

import httpx
from support.ledger import Json, due, kept, read
from support.processes import Pair, Service, eventually


def people() -> Json:
    return {"physician_id": str(uuid4()), "patient_id": str(uuid4())}


async def started(http: httpx.AsyncClient, pair: Pair) -> str:
    answer = await http.post(f"{pair.appointment.url}/", json=people())
    return str(read(answer.raise_for_status())["id"])


async def finished(http: httpx.AsyncClient, pair: Pair) -> Json:
    answer = await http.post(f"{pair.appointment.url}/{await started(http, pair)}/")
    appointment: Json = read(answer.raise_for_status())
    return appointment


async def charge(http: httpx.AsyncClient, pair: Pair, appointment_id: str) -> Decimal:
    answer = await http.get(f"{pair.financial.url}/{appointment_id}/", headers={"Prefer": "wait=20"})
    return Decimal(read(answer.raise_for_status())["total_price"])


async def test_200_finishes_while_the_financial_service_is_down_become_200_charges(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.appointment.started()
    acknowledged = [
        each for _ in range(10) for each in await asyncio.gather(*(finished(http, pair) for _ in range(20)))
    ]

    await pair.financial.started()
    await asyncio.gather(*(charge(http, pair, each["id"]) for each in acknowledged))

    found = await kept(http, pair.appointment.url, pair.financial.url)
    assert {each["appointment_id"]: each["total_price"] for each in found.charges} == {
        each["id"]: due(each) for each in acknowledged
    }
    assert len(found.charges) == 200


async def test_a_finish_is_charged_though_its_service_was_killed_right_after_the_answer(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    for _ in range(3):
        appointment = await finished(http, pair)
        pair.appointment.kill()
        await pair.appointment.started()
        assert await charge(http, pair, appointment["id"]) == due(appointment)


async def test_data_survive_a_restart_of_both(pair: Pair, http: httpx.AsyncClient) -> None:
    await pair.started()
    one, unfinished = await finished(http, pair), await started(http, pair)
    await charge(http, pair, one["id"])
    before = await kept(http, pair.appointment.url, pair.financial.url)

    assert [await service.stopped() for service in pair.services] == [0, 0]
    await pair.started()

    assert await kept(http, pair.appointment.url, pair.financial.url) == before
    assert [each["id"] for each in before.appointments] == [unfinished, one["id"]]
    answer = await http.post(f"{pair.appointment.url}/{unfinished}/")
    assert await charge(http, pair, unfinished) == due(read(answer))


async def test_a_service_that_froze_goes_on_where_it_was(pair: Pair, http: httpx.AsyncClient) -> None:
    await pair.started()
    pair.financial.send(signal.SIGSTOP)
    acknowledged = [await finished(http, pair) for _ in range(5)]

    pair.financial.send(signal.SIGCONT)

    assert [await charge(http, pair, each["id"]) for each in acknowledged] == [
        due(each) for each in acknowledged
    ]


async def test_finishing_fifty_times_at_once_is_one_end_and_one_charge(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    path = f"{pair.appointment.url}/{await started(http, pair)}/"

    answers = await asyncio.gather(*(http.post(path) for _ in range(50)))

    acknowledged = [read(answer.raise_for_status()) for answer in answers]
    assert all(each == acknowledged[0] for each in acknowledged)
    assert await charge(http, pair, acknowledged[0]["id"]) == due(acknowledged[0])
    assert (await _published(http, pair)) == 1


async def _published(http: httpx.AsyncClient, pair: Pair) -> int:
    metrics = (await http.get(f"{pair.appointment.url}/metrics")).text
    (line,) = (
        line for line in metrics.splitlines() if line.startswith('clinic_events_total{event="published"}')
    )
    return int(float(line.split()[-1]))


async def test_clients_that_leave_in_the_middle_of_a_request_harm_nobody(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    appointment_id = await started(http, pair)
    body = json.dumps(people()).encode()
    fields = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    head = f"POST / HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    for service, sent in (
        (pair.appointment, head + body[:20]),
        (pair.appointment, head + body),
        (
            pair.appointment,
            f"POST /{appointment_id}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode(),
        ),
        (pair.financial, f"GET /{uuid4()}/ HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n".encode()),
        (pair.financial, b"\x00\xff nonsense\r\n\r\n"),
    ):
        for _ in range(5):
            service.hear_half(sent)

    acknowledged = [await finished(http, pair) for _ in range(5)]
    assert [await charge(http, pair, each["id"]) for each in acknowledged] == [
        due(each) for each in acknowledged
    ]
    again = read(await http.post(f"{pair.appointment.url}/{appointment_id}/"))
    assert await charge(http, pair, appointment_id) == due(again)


async def test_both_in_one_process_need_no_file(
    command: Callable[..., Service], pair: Pair, http: httpx.AsyncClient
) -> None:
    both = command("run", "--in-process", CLINIC_STORE="memory", CLINIC_TRANSPORT="memory")
    await both.started()

    appointment = await finished(http, pair)

    assert await charge(http, pair, appointment["id"]) == due(appointment)
    assert not pair.data.exists()
    assert await both.stopped() == 0


async def test_an_event_log_that_was_replaced_loses_no_later_charge(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    for _ in range(5):
        before = await finished(http, pair)
        await charge(http, pair, before["id"])
    assert await pair.appointment.stopped() == 0
    for file in pair.data.glob("events.db*"):
        file.unlink()

    await pair.appointment.started()
    after = await finished(http, pair)

    assert await charge(http, pair, after["id"]) == due(after)


async def test_a_service_whose_events_nobody_takes_says_that_requests_are_answered(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.appointment.started()
    appointment = await finished(http, pair)

    async def published() -> bool:
        return (await http.get(f"{pair.appointment.url}/health/ready")).json().get(
            "oldest_unpublished_seconds"
        ) is None

    await eventually(published)
    assert (await http.get(f"{pair.appointment.url}/{appointment['id']}/")).json()["end_date"] == appointment[
        "end_date"
    ]
