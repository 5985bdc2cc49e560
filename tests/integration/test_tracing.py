"""One trace from the request to the charge, whatever crashes in between."""

import os
import sys
from collections.abc import Iterator, Sequence

import httpx
import pytest
from support import trace_picture
from support.collector import Collector, Span, collecting
from support.processes import Pair, Process, Service

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PEOPLE = {
    "physician_id": "11111111-1111-4111-8111-111111111111",
    "patient_id": "22222222-2222-4222-8222-222222222222",
}

HELD_UP = """
import asyncio, sys
from clinic.adapters.sqlite.transport import SqlitePublisher
from clinic.entrypoints.cli.main import main
async def held_up(*_):
    await asyncio.Event().wait()
SqlitePublisher.publish = held_up
sys.exit(main())
"""
"""The program with a relay that comes as far as its publication, and no further."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


async def test_a_relay_killed_between_save_and_publication_leaves_one_trace(
    pair: Pair, processes: list[Process], http: httpx.AsyncClient, collector: Collector
) -> None:
    before = Service(
        "held-up",
        (sys.executable, "-c", HELD_UP, "run", "appointment"),
        pair.environment,
        pair.folder,
        pair.appointment.url,
    )
    processes.append(before)
    variables = [f"{name}={value}\n" for name, value in collector.environment.items()]
    (pair.folder / ".env").write_text("".join(variables))
    for service, instance in ((before, "1"), (pair.appointment, "2"), (pair.financial, "1")):
        service.environment["OTEL_RESOURCE_ATTRIBUTES"] = f"service.instance.id={instance}"
    for service in (before, pair.financial):
        service.start()
    for service in (before, pair.financial):
        await service.ready()

    started = (await http.post(f"{before.url}/", json=PEOPLE)).json()
    finish = f"{before.url}/{started['id']}/"
    await http.post(finish, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
    await collector.came("POST /{appointment_id}", "create")
    before.kill()
    await pair.appointment.started()
    await collector.came("send", "receive", "process", "charge")
    charged = await http.get(f"{pair.financial.url}/{started['id']}/")

    assert charged.is_success
    way = collector.way_of(TRACE)
    if os.environ.get("CLINIC_TEST_REWRITE"):
        trace_picture.keep(way)
    assert shape(way) == shape(trace_picture.kept())
    assert shape(way) == [
        ("appointment 1", "POST /{appointment_id}", "server", "the caller", TRACE),
        ("appointment 1", "create", "producer", "POST /{appointment_id}", TRACE),
        ("appointment 2", "send", "client", "→ create", "another"),
        ("financial 1", "receive", "client", "→ create", "another"),
        ("financial 1", "process", "consumer", "receive → create", "another"),
        ("financial 1", "charge", "internal", "create → process", TRACE),
    ]
    for service in (pair.appointment, pair.financial):
        assert await service.stopped() == 0
    assert TRACE in "".join(line for line in pair.financial.complained.splitlines() if "charged" in line)


def shape(spans: Sequence[Span]) -> list[tuple[str, ...]]:
    """Service, name, kind, parent → links, and trace of each."""
    names = {span.span_id: span.name for span in spans} | {CALLER: "the caller"}

    def related(span: Span) -> str:
        links = [f"→ {names[its]}" for _, its in span.links]
        return " ".join([*([names[span.parent_id]] if span.parent_id else []), *links])

    return [
        (
            f"{span.service.removeprefix('clinic-')} {span.instance}",
            span.name,
            span.kind,
            related(span),
            span.trace_id if span.trace_id == TRACE else "another",
        )
        for span in spans
    ]
