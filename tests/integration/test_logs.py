"""What a running service writes: what matters to a person who watches, and never a body."""

import asyncio
import re
from collections.abc import Callable

import httpx
import pytest
from support.processes import Pair, Service, eventually


@pytest.mark.parametrize("shape", ["console", "json"])
async def test_the_body_of_a_client_that_leaves_is_never_written(
    command: Callable[..., Service], http: httpx.AsyncClient, shape: str
) -> None:
    service = command("run", "appointment", CLINIC_LOG_FORMAT=shape)
    await service.started()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"

    for _ in range(5):
        service.hear_half(head + b'{"physician_id": "a-secret')
    await asyncio.gather(
        *(http.post(f"{service.url}/", json={"patient_id": "a-secret", "hush": "a-secret"}) for _ in range(5))
    )

    assert await service.stopped() == 0
    assert "a-secret" not in service.complained


async def test_each_step_of_an_appointment_is_one_line_with_its_id(
    pair: Pair, http: httpx.AsyncClient
) -> None:
    await pair.started()
    started = (
        await http.post(f"{pair.appointment.url}/", json={"physician_id": PERSON, "patient_id": PERSON})
    ).json()
    await http.post(f"{pair.appointment.url}/{started['id']}/")
    await http.get(f"{pair.financial.url}/{started['id']}/", headers={"Prefer": "wait=10"})

    async def both_told() -> bool:
        logs = pair.appointment.complained, pair.financial.complained
        return all(
            re.search(rf"{what}.*{started['id']}", log)
            for what, log in zip(("published", "charged"), logs, strict=True)
        )

    await eventually(both_told)
    assert PERSON not in pair.appointment.complained + pair.financial.complained


PERSON = "8c9b1b0e-5d3f-4c39-9a53-0b9d3b1f8f10"
