"""The flow: what one look sees, and how many looks a process makes for whoever watches."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import pytest
from support.apps import WatchedTelemetry
from support.pages import Pages

from clinic.domain.errors import Unavailable
from clinic.entrypoints.console import flow, watching
from clinic.entrypoints.console.charts import Scale, percentile, scale_of
from clinic.entrypoints.console.flow import MAX_KNOWN, SHOWN, SIGNS_INTERVAL, TRACES, Flow
from clinic.entrypoints.console.watching import FRESH, INTERVAL, MAX_WATCHERS, Watch
from clinic.entrypoints.service import Lifecycle
from clinic.testing.builders import a_letter


class Beat:
    """Sleeps until the test lets it go on."""

    def __init__(self) -> None:
        self._sleeps, self._goes = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        assert seconds == INTERVAL
        self._sleeps.release()
        await self._goes.acquire()

    async def go_on(self) -> None:
        """Once it sleeps."""
        await self._sleeps.acquire()
        self._goes.release()


class Looks:
    """Counts them; the first ones may never end, or fail."""

    def __init__(self, *, hang: bool = False, fail: bool = False) -> None:
        self.count = 0
        self.began = asyncio.Event()
        self.hang, self.fail = hang, fail

    async def __call__(self) -> int:
        self.count += 1
        self.began.set()
        if self.hang:
            await asyncio.Event().wait()
        if self.fail:
            raise ValueError("a defect")
        return self.count


class Eye:
    """A watch with its time in the test's hands."""

    def __init__(self, looks: Looks) -> None:
        self._others = asyncio.all_tasks()
        self.looks, self.beat = looks, Beat()
        self.time = 0.0
        self.telemetry = WatchedTelemetry("console")
        self.lifecycle = Lifecycle(self.telemetry)
        self.watch = Watch(looks, self.lifecycle, self.telemetry, self.beat, lambda: self.time)

    async def second(self) -> None:
        """A second goes by."""
        self.time += INTERVAL
        await self.beat.go_on()

    async def all_ended(self) -> None:
        """Return once nothing that began with it goes on."""
        if begun := asyncio.all_tasks() - self._others:
            await asyncio.wait(begun)


async def waiting(*streams: AsyncGenerator[int, None]) -> list[asyncio.Task[int]]:
    """One task for each, that waits for its next look by now."""
    tasks = [asyncio.create_task(_next(stream)) for stream in streams]
    await asyncio.sleep(0)
    return tasks


async def _next(stream: AsyncGenerator[int, None]) -> int:
    return await anext(stream)


async def seen_by(*streams: AsyncGenerator[int, None]) -> list[int]:
    return await asyncio.gather(*await waiting(*streams))


async def test_one_look_a_second_serves_three_watchers() -> None:
    eye = Eye(Looks())
    streams = [eye.watch.follow() for _ in range(3)]
    for number in (1, 2, 3):
        following = await waiting(*streams)
        if number > 1:
            await eye.second()
        assert await asyncio.gather(*following) == [number] * 3
    assert eye.looks.count == 3


async def test_it_stops_after_the_last_watcher_left() -> None:
    eye = Eye(Looks())
    first, second = eye.watch.follow(), eye.watch.follow()
    assert await seen_by(first, second) == [1, 1]
    await first.aclose()
    following = await waiting(second)
    await eye.second()
    assert await following[0] == 2
    await second.aclose()
    await eye.second()
    await eye.all_ended()
    assert (eye.looks.count, eye.watch.watchers) == (2, 0)


async def test_who_comes_back_later_sees_on() -> None:
    eye = Eye(Looks())
    for number in (1, 2):
        async with aclosing(eye.watch.follow()) as stream:
            assert await anext(stream) == number
        await eye.second()
        await eye.all_ended()


async def test_who_is_slow_sees_the_next_look_and_no_older_one() -> None:
    eye = Eye(Looks())
    quick, slow = eye.watch.follow(), eye.watch.follow()
    assert await seen_by(quick, slow) == [1, 1]
    for number in (2, 3):
        following = await waiting(quick)
        await eye.second()
        assert await following[0] == number
    both = await waiting(quick, slow)
    await eye.second()
    assert await asyncio.gather(*both) == [4, 4]


async def test_a_watcher_that_is_cancelled_leaves_the_others() -> None:
    eye = Eye(Looks())
    stays = eye.watch.follow()
    assert await anext(stays) == 1
    leaving, staying = await waiting(eye.watch.follow(), stays)
    assert eye.watch.watchers == 2
    leaving.cancel()
    await asyncio.wait([leaving])
    assert eye.watch.watchers == 1
    await eye.second()
    assert await staying == 2


@pytest.mark.parametrize("hang", [False, True])
async def test_every_stream_ends_at_once_when_the_service_stops(hang: bool) -> None:
    eye = Eye(Looks(hang=hang))
    following = [asyncio.create_task(seen_to_the_end(eye.watch)) for _ in range(3)]
    await eye.looks.began.wait()
    eye.lifecycle.stop()
    assert await asyncio.gather(*following) == [[] if hang else [1]] * 3
    await eye.all_ended()


async def seen_to_the_end(watch: Watch[int]) -> list[int]:
    return [seen async for seen in watch.follow()]


async def test_no_more_watch_than_may() -> None:
    eye = Eye(Looks())
    streams = [eye.watch.follow() for _ in range(MAX_WATCHERS)]
    assert await seen_by(*streams) == [1] * MAX_WATCHERS
    with pytest.raises(Unavailable, match="pages are live already"):
        eye.watch.check_free()
    assert await seen_to_the_end(eye.watch) == []
    await streams[0].aclose()
    eye.watch.check_free()
    assert eye.watch.watchers == MAX_WATCHERS - 1


async def test_a_defect_ends_the_streams_is_logged_and_the_next_one_looks_again() -> None:
    eye = Eye(Looks(fail=True))
    assert await seen_to_the_end(eye.watch) == []
    counted = eye.telemetry.registry.get_sample_value("clinic_events_total", {"event": "unforeseen"})
    assert counted == 1
    eye.looks.fail = False
    async with aclosing(eye.watch.follow()) as stream:
        assert await anext(stream) == 2


async def test_pages_of_one_second_share_a_look() -> None:
    eye = Eye(Looks())
    assert await asyncio.gather(*(eye.watch.now() for _ in range(5))) == [1] * 5
    eye.time += FRESH
    assert await eye.watch.now() == 2


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    async with Pages(tmp_path).running() as pages:
        yield pages


async def test_the_page_joins_what_both_services_list(pages: Pages) -> None:
    charged, still_open = await pages.charged(), await pages.clinic.start()
    answer = await pages.browser.get("/flow")
    assert answer.status_code == 200
    rows = {row.partition('"')[0]: row for row in answer.text.split('<a id="f-')[1:]}
    assert list(rows) == [still_open, charged]
    assert "in the room" in rows[still_open]
    assert "$200.00" in rows[charged]
    assert " ms" in rows[charged]
    assert answer.text.count('<rect class="wait"') == 1


async def test_the_trace_of_what_is_charged_is_asked_for_once(pages: Pages) -> None:
    ids = [await pages.charged() for _ in range(TRACES + 2)]
    look = Flow(pages.services)
    first = await look()
    assert pages.appointment.traces() == pages.financial.traces() == TRACES
    assert sum(line.seconds is not None for line in first.lines) == TRACES
    second, third = await look(), await look()
    assert pages.appointment.traces() == pages.financial.traces() == len(ids)
    assert {str(line.id) for line in third.lines if line.seconds == 0.0} == set(ids)
    assert second.lines == third.lines


async def test_what_it_keeps_of_traces_has_a_bound(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_KNOWN >= SHOWN
    monkeypatch.setattr(flow, "MAX_KNOWN", 2)
    for _ in range(4):
        await pages.charged()
    look = Flow(pages.services)
    await look()
    assert len(look._charged) == 2  # noqa: SLF001 — nothing else shows it


async def test_what_waits_for_a_person_is_said(pages: Pages) -> None:
    appointments = pages.clinic.appointment.appointments()
    appointment = await appointments.get(UUID(await pages.clinic.start()))
    finished, _ = appointment.finish(pages.clinic.clock())
    await appointments.save(finished)  # without its event, as a restored backup may have it
    assert [line.waits_for for line in (await Flow(pages.services)()).lines] == ["a person"]
    assert "waits for a person" in (await pages.browser.get("/flow")).text


async def test_where_the_appointments_are_away_the_charges_are_shown(pages: Pages) -> None:
    its_id = await pages.charged()
    pages.appointment.is_cut = True
    seen = await Flow(pages.services)()
    assert [str(line.id) for line in seen.lines] == [its_id]
    assert str(seen.lines[0].total) == "200.00"
    assert [away.service for away in seen.away] == ["appointment"]
    assert pages.financial.traces() == 0


async def test_where_the_charges_are_away_the_appointments_are_shown(pages: Pages) -> None:
    its_id = await pages.charged()
    pages.financial.is_cut = True
    answer = await pages.browser.get("/flow")
    assert answer.status_code == 200
    assert "The financial service does not answer" in answer.text
    assert f'id="f-{its_id}"' in answer.text
    assert "being charged" in answer.text
    assert answer.text.count('<rect class="open"') == 1


async def test_the_services_signs_are_asked_for_less_often(tmp_path: Path) -> None:
    async with Pages(tmp_path, "sqlite").running() as pages:
        await pages.clinic.financial.dead_letters().add([a_letter()])
        time = 0.0
        look = Flow(pages.services, lambda: time)
        signs = [(await look()).signs for _ in range(2)]
        assert (signs[0].letters, signs[0].outbox, signs[0].lag) == (1.0, 0.0, 0.0)
        assert signs[0].findings is None  # no audit runs
        time = SIGNS_INTERVAL
        await look()
        assert pages.financial.asked.count("/metrics") == 2
        assert pages.financial.asked.count("/") == 3


async def test_a_stream_sends_the_part_once_and_ends_with_the_service(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.01)
    its_id = await pages.charged()
    stream = pages.stream("/flow/events")
    assert (await stream.next()).startswith(b"retry: ")
    event = await stream.next()
    assert event.endswith(b"\n\n")
    assert all(line.startswith(b"data: ") for line in event.splitlines()[:-1])
    assert f'id="f-{its_id}"'.encode() in event
    assert b"<html" not in event
    assert await stream.next() == b":\n\n"  # nothing is new
    pages.lifecycle.stop()
    await stream.answering
    assert pages.lifecycle.failure is None


async def test_a_stream_ends_when_its_reader_leaves(pages: Pages) -> None:
    stream = pages.stream("/flow/events")
    assert (await stream.next()).startswith(b"retry: ")
    assert (await stream.next()).startswith(b"data: ")
    stream.leave()
    await stream.answering


async def test_beyond_the_bound_a_stream_is_answered_503(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHERS", 0)
    answer = await pages.browser.get("/flow/events")
    assert answer.status_code == 503
    assert "pages are live already" in answer.text


def test_a_scale_shows_milliseconds_beside_hours() -> None:
    scale = Scale()
    shares = [scale(seconds) for seconds in (0.0, 0.001, 0.04, 1.0, 60.0, 7200.0, 86_400.0, 10**9)]
    assert shares == sorted(shares)
    assert (shares[0], shares[1], shares[-2], shares[-1]) == (0.0, 0.0, 100.0, 100.0)
    assert 15 < shares[2] < shares[5] < 95
    assert set(scale.ticks) == {"10 ms", "1 s", "1 min", "1 h"}


@pytest.mark.parametrize(("longest", "most"), [(0.0, 0.01), (0.04, 0.1), (10.0, 10.0), (10**6, 86_400.0)])
def test_a_scale_ends_where_all_are_shown(longest: float, most: float) -> None:
    assert scale_of([0.001, longest]).most == most


@pytest.mark.parametrize(
    ("values", "median", "slowest"), [([], None, None), ([1.0], 1.0, 1.0), ([3.0, 1.0, 2.0], 2.0, 3.0)]
)
def test_percentiles_are_values_that_were_seen(
    values: list[float], median: float | None, slowest: float | None
) -> None:
    assert (percentile(values, 50), percentile(values, 99)) == (median, slowest)
