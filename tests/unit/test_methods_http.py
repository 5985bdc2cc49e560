"""HEAD and OPTIONS on every path, and what a 405 says is allowed."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support.apps import NOBODY, Clinic, problem, settings

TOKEN = "0123456789abcdef"  # noqa: S105 — of no other service than these tests'
PATHS = {
    "/": "GET, HEAD, OPTIONS",
    f"/{NOBODY}/": "GET, HEAD, OPTIONS",
    f"/{NOBODY}": "GET, HEAD, OPTIONS",
    "/health/live": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/metrics": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/redoc": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/docs/files/redoc/bundles/redoc.standalone.js": "GET, HEAD, OPTIONS",
}
LETTERS = {
    "/dead-letters/": "GET, HEAD, OPTIONS",
    "/dead-letters/groups/": "GET, HEAD, OPTIONS",
    "/dead-letters/topic/0/1": "GET, HEAD, OPTIONS",
    "/dead-letters/replay/": "OPTIONS, POST",
    "/dead-letters/discard/": "OPTIONS, POST",
}


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path, operator_token=TOKEN)).running() as clinic:
        yield clinic


def both(clinic: Clinic) -> list[tuple[httpx.AsyncClient, str, str]]:
    """Every path of both services, with the methods it takes."""
    of_appointments = PATHS | dict.fromkeys(("/", f"/{NOBODY}/", f"/{NOBODY}"), "GET, HEAD, OPTIONS, POST")
    return [
        *((clinic.appointments, *each) for each in of_appointments.items()),
        *((clinic.charges, *each) for each in (PATHS | LETTERS).items()),
    ]


async def test_head_answers_as_get_without_a_body(clinic: Clinic) -> None:
    await clinic.finish(await clinic.start())
    for client, path, allowed in both(clinic):
        if "GET" in allowed and path != "/metrics":
            got, asked = await client.get(path), await client.head(path)
            assert (asked.status_code, asked.content) == (got.status_code, b""), path
            assert dict(asked.headers) == dict(got.headers), path
            assert int(asked.headers["content-length"]) == len(got.content), path


async def test_head_of_the_metrics_has_no_body(clinic: Clinic) -> None:
    asked = await clinic.charges.head("/metrics")
    assert (asked.status_code, asked.content) == (200, b"")


async def test_options_names_every_method_of_a_path(clinic: Clinic) -> None:
    for client, path, allowed in both(clinic):
        answer = await client.options(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b""), path


async def test_a_405_names_every_method_of_a_path(clinic: Clinic) -> None:
    for client, path, allowed in both(clinic):
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await client.request(method, path)
            problem(answer, 405)
            assert answer.headers["allow"] == allowed, path


async def test_head_and_options_of_an_unknown_path_are_404(clinic: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges):
        for path in ("/nothing", "/health/nothing", "/docs/files/nothing.js"):
            assert (await client.head(path)).status_code == 404
    for client in (clinic.appointments, clinic.charges):
        problem(await client.options("/a/b"), 404)


@pytest.mark.parametrize(
    "path", ["/nothing", "/nothing/", "/123", f"/{NOBODY}x", "/%20", "/%ff", "/dead-letters"]
)
@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "GET", "PUT", "DELETE", "TRACE"])
async def test_a_path_with_an_unreadable_id_is_a_404_for_every_method(
    clinic: Clinic, method: str, path: str
) -> None:
    answer = await clinic.appointments.request(method, path)
    assert (answer.status_code, "allow" in answer.headers) == (404, False)
