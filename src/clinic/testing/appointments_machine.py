"""Any history of appointments and their outbox, beside a model: a dict, the events that are unpublished, and
who holds them.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition
from msgspec.structs import replace

from clinic.domain.appointment.model import Appointment
from clinic.domain.appointment.ports import AppointmentFilter
from clinic.domain.errors import Conflict, NotFound
from clinic.domain.messaging.messages import ClaimedMessage, Message, PublishResult
from clinic.domain.messaging.ports import Waiting
from clinic.testing.builders import ONE_O_CLOCK, TWO_O_CLOCK, a_message, an_appointment, now
from clinic.testing.machines import IDS, Machine, Openable, anyone, given_up, ids, people, step
from clinic.testing.outbox_model import OutboxModel, position
from clinic.testing.subject import Contract, Store

LONG = 600.0
SHORT = 0.03
"""Seconds of a lease that ends within a history."""


class Tried(NamedTuple):
    """An appointment that is to be saved, how far its version is from the one that is kept, and the number of
    its events.
    """

    id: UUID
    ahead: int
    events: int


class Save(NamedTuple):
    state: Appointment
    events: Sequence[Message]
    outcome: Appointment | BaseException


tried = st.builds(Tried, ids, st.sampled_from([0, 0, 0, 0, -1, 1]), st.integers(0, 2))


class AppointmentsMachine(Machine):
    """Its model of the appointments is `kept`."""

    def __init__(
        self,
        suite: Contract,
        opened: Callable[[Path, float], AbstractAsyncContextManager[Store]],
        where: Path,
        *,
        together: bool,
    ) -> None:
        super().__init__(suite, where)
        self._opened = opened
        self._together = together
        self._numbers = count(1)
        self._new()

    def _new(self) -> None:
        self.kept: dict[UUID, Appointment] = {}
        self.first: dict[bytes, Appointment] = {}
        """Of those that were added under a key."""
        self.outbox = OutboxModel(together=self._together)

    @initialize(lease=st.sampled_from([LONG, SHORT]))
    def begin(self, lease: float) -> None:
        self.lease, self.store = lease, Openable(partial(self._opened, self.where, lease))
        self.start()
        self.run(self._add(an_appointment(id=IDS[0])))

    async def open(self) -> None:
        await self.store.open()

    async def close(self) -> None:
        if self._is_open:
            await self.store.close()

    @property
    def leases_end(self) -> bool:
        """Whether an event that somebody held comes again while the test waits."""
        return self.lease == SHORT or not self.suite.several

    @step(id_=ids, physician=people, patient=people, key=st.sampled_from([b"", b"", b"one key", b"another"]))
    async def add(self, id_: UUID, physician: UUID, patient: UUID, key: bytes) -> None:
        new = an_appointment(id=id_, physician_id=physician, patient_id=patient)
        if key in self.first or (key and id_ not in self.kept):
            await self._add_once(new, key)
        else:
            await self._add(new)

    async def _add_once(self, new: Appointment, key: bytes) -> None:
        """Twice at the same moment."""
        other = replace(new, id=UUID(int=next(self._numbers) << 64))
        first, same = await asyncio.gather(*(self.store().add(each, once=key) for each in (new, other)))
        assert first == same == self.first.setdefault(key, first), "another one was the first"
        self.kept.setdefault(first.id, first)

    async def _add(self, new: Appointment) -> None:
        try:
            await self.store().add(new)
        except Conflict:
            assert new.id in self.kept
        else:
            assert new.id not in self.kept
            self.kept[new.id] = new

    @step(id_=ids)
    async def get(self, id_: UUID) -> None:
        try:
            assert await self.store().get(id_) == self.kept.get(id_)
        except NotFound:
            assert id_ not in self.kept

    @step(attempt=tried)
    async def save(self, attempt: Tried) -> None:
        await self._save([attempt])

    @step(attempts=st.lists(tried, min_size=2, max_size=5))
    async def save_at_once(self, attempts: Sequence[Tried]) -> None:
        await self._save(attempts)

    async def _save(self, attempts: Sequence[Tried]) -> None:
        states = [self._state(each.id, each.ahead) for each in attempts]
        events = [[self._event(each.id) for _ in range(each.events)] for each in attempts]
        since = now()
        saves = (self.store().save(state, *about) for state, about in zip(states, events, strict=True))
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        for id_ in {each.id for each in attempts}:
            mine = [Save(*each) for each in zip(states, events, outcomes, strict=True) if each[0].id == id_]
            self._settle(self.kept.get(id_), mine, since)

    def _settle(self, kept: Appointment | None, saves: Sequence[Save], since: datetime) -> None:
        """One wins at each version, from the one that is kept on; everyone else hears of a conflict."""
        won = sorted(
            (each for each in saves if isinstance(each.outcome, Appointment)),
            key=lambda each: each.state.version,
        )
        assert all(each in won or isinstance(each.outcome, Conflict) for each in saves), saves
        first = kept.version if kept else 0
        assert [each.state.version for each in won] == list(range(first, first + len(won)))
        assert won or not kept or all(each.state.version != first for each in saves), "nobody won"
        for each in won:
            assert each.outcome == replace(each.state, version=each.state.version + 1)
            self.kept[each.state.id] = each.outcome
            self.outbox.keep(each.events, since, now())

    @step(which=st.integers(0, 3))
    async def republish_finished(self, which: int) -> None:
        """An event that was published is saved once more, as a repair does."""
        published = [event for event, where in self.outbox.known.values() if where]
        if not published:
            return
        event, since = published[which % len(published)], now()
        state = self._state(UUID(event.subject), 0)
        self._settle(state, [Save(state, [event], await self.store().save(state, event))], since)
        status = await self.store().status(event)
        assert status is not None
        assert status.published_at is None

    @step(limit=st.integers(1, 5))
    async def claim(self, limit: int) -> None:
        """Where nothing is to be handed over, it waits until something is saved."""
        waiting = asyncio.create_task(self.store().claim(limit))
        await asyncio.sleep(0)
        if not (self.outbox.free or (self.outbox.unpublished and self.lease == SHORT)):
            await self._save_new()
        self._take(await waiting, limit)

    async def _save_new(self) -> Message:
        """The event of a new appointment, which nobody holds."""
        new = an_appointment(id=UUID(int=next(self._numbers) << 64), physician_id=UUID(int=3))
        await self._add(new)
        since, event = now(), self._event(new.id)
        self._settle(new, [Save(new, [event], await self.store().save(new, event))], since)
        return event

    def _take(self, claimed: Sequence[ClaimedMessage], limit: int) -> None:
        assert 1 <= len(claimed) <= limit
        assert all(each.expires_at <= monotonic() + self.lease for each in claimed)
        self.outbox.take(claimed)

    @step()
    async def give_up_claiming(self) -> None:
        if claimed := await given_up(self.store().claim(5)):
            self._take(claimed, 5)

    @step(which=st.sets(st.integers(0, 3), min_size=1), unknown=st.none() | ids)
    async def confirm(self, which: set[int], unknown: UUID | None) -> None:
        events = [event for number, event in enumerate(self.outbox.held) if number in which]
        await self._confirm([*events, *([self._event(unknown)] if unknown else [])])

    async def _confirm(self, events: Sequence[Message]) -> None:
        self.outbox.forget(events)  # whatever may come again from now on
        await self.store().confirm([PublishResult(event, position(event), now()) for event in events])

    @step(id_=ids)
    async def status(self, id_: UUID) -> None:
        for event, where in self.outbox.known.values():
            status = await self.store().status(event)
            assert status is not None
            assert (status.position, status.published_at is None) == (where, where is None)
        assert await self.store().status(self._event(id_)) is None

    @invariant()
    def knows_the_oldest(self) -> None:
        self.run(self._knows_the_oldest())

    async def _knows_the_oldest(self) -> None:
        assert self.outbox.is_oldest(await self.store().oldest())

    @step(limit=st.integers(1, 5))
    async def list_what_waits(self, limit: int) -> None:
        """Page by page, each subject that has an unpublished event, by the moments of their saves."""
        found = list[Waiting]()
        while page := await self.store().waiting(limit, after=found[-1] if found else None):
            assert len(page) <= limit
            found += page
        assert found == sorted(found)
        assert {subject for _, subject in found} == {
            event.subject for event in self.outbox.unpublished.values()
        }

    @step(
        physician=anyone,
        patient=anyone,
        finished=st.sampled_from([None, True, False]),
        before=st.sampled_from([None, ONE_O_CLOCK, ONE_O_CLOCK + timedelta(seconds=1)]),
        limit=st.integers(1, 5),
        after=st.none() | ids,
    )
    async def page(
        self,
        physician: UUID | None,
        patient: UUID | None,
        finished: bool | None,
        before: datetime | None,
        limit: int,
        after: UUID | None,
    ) -> None:
        wanted = AppointmentFilter(physician, patient, finished, before)
        expected = [
            each for each in self._newest() if is_wanted(each, wanted) and (after is None or each.id < after)
        ]
        assert list(await self.store().page(wanted, limit, after)) == expected[:limit]

    @precondition(lambda self: self.leases_end)
    @step()
    async def die(self) -> None:
        await self._die()

    async def _die(self) -> None:
        await self.store.reopen()
        if not self.suite.survives:
            self._new()
        elif not self.suite.several:
            self.outbox.let_go()  # the leases died with their process

    async def ends(self) -> None:
        """Exactly the events that were saved and not confirmed are handed over."""
        if self.suite.survives and self.leases_end:
            await self._die()
        await self._hand_over_all()
        assert await self.store().oldest() is None
        await self._hand_over_the_next()
        assert list(await self.store().page(AppointmentFilter(), 1000)) == self._newest()

    async def _hand_over_the_next(self) -> None:
        waiting = asyncio.create_task(self.store().claim(5))
        await asyncio.sleep(0)
        event = await self._save_new()
        self._take(await waiting, 5)
        while event not in self.outbox.held:
            self._take(await self.store().claim(5), 5)

    async def _hand_over_all(self) -> None:
        while events := set(self.outbox.unpublished):
            handed: set[str] = set()
            while events - handed if self.lease == SHORT else self.outbox.free:
                claimed = await self.store().claim(5)
                self._take(claimed, 5)
                handed |= {each.message.id for each in claimed}
            await self._confirm(self.outbox.held)

    def _newest(self) -> list[Appointment]:
        return sorted(self.kept.values(), key=attrgetter("id"), reverse=True)

    def _state(self, id_: UUID, ahead: int) -> Appointment:
        state = self.kept.get(id_) or an_appointment(id=id_)
        return replace(
            state, version=state.version + ahead, end=TWO_O_CLOCK + timedelta(seconds=next(self._numbers))
        )

    def _event(self, id_: UUID) -> Message:
        return a_message(id=f"event-{next(self._numbers)}", subject=str(id_), key=str(id_))


def is_wanted(each: Appointment, wanted: AppointmentFilter) -> bool:
    return (
        wanted.physician_id in (None, each.physician_id)
        and wanted.patient_id in (None, each.patient_id)
        and wanted.finished in (None, each.end is not None)
        and (wanted.started_before is None or each.start < wanted.started_before)
    )
