"""Any history of charges, beside a model: the first charge of each appointment."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from clinic.domain.errors import NotFound
from clinic.domain.financial.model import Charge, ChargeCursor
from clinic.domain.financial.ports import AddResult, ChargeFilter, Charges
from clinic.domain.money import Money
from clinic.testing.builders import TWO_O_CLOCK, a_charge
from clinic.testing.machines import IDS, Machine, Openable, anyone, ids, people, step
from clinic.testing.subject import Contract

times = st.sampled_from([TWO_O_CLOCK + timedelta(milliseconds=number) for number in range(3)])
places = st.builds(ChargeCursor, times, ids)


@st.composite
def charges(draw: st.DrawFn) -> Charge:
    return a_charge(
        appointment_id=draw(ids),
        physician_id=draw(people),
        patient_id=draw(people),
        charged_at=draw(times),
        total=Money(f"{draw(st.integers(1, 9))}.00"),
    )


batches = st.lists(charges(), max_size=4)


class ChargesMachine(Machine):
    """Its model is `kept`."""

    def __init__(
        self, suite: Contract, opened: Callable[[Path], AbstractAsyncContextManager[Charges]], where: Path
    ) -> None:
        super().__init__(suite, where)
        self.kept: dict[UUID, Charge] = {}
        self.charges = Openable(partial(opened, self.where))

    @initialize()
    def begin(self) -> None:
        self.start()

    async def open(self) -> None:
        await self.charges.open()

    async def close(self) -> None:
        await self.charges.close()

    @step(batch=batches)
    async def add(self, batch: Sequence[Charge]) -> None:
        first = {each.appointment_id: each for each in reversed(batch)}
        new = {id_: charge for id_, charge in first.items() if id_ not in self.kept}
        existing = [each.appointment_id for each in batch if each is not new.get(each.appointment_id)]
        added = await self.charges().add(batch)
        self.kept |= new
        assert by_id(added.new) == new
        assert by_id(added.existing) == {id_: self.kept[id_] for id_ in existing}

    @step(several=st.lists(batches, min_size=2, max_size=3))
    async def add_at_once(self, several: Sequence[Sequence[Charge]]) -> None:
        """Who comes first is anybody's guess, but there is one who does, and all agree on it."""
        before = dict(self.kept)
        added = await asyncio.gather(*(self.charges().add(batch) for batch in several))
        new = [each for one in added for each in one.new]
        self.kept |= by_id(new)
        assert not before.keys() & by_id(new).keys()
        assert self.kept.keys() == before.keys() | {
            each.appointment_id for batch in several for each in batch
        }
        for batch, one in zip(several, added, strict=True):
            self._agrees(batch, one)

    def _agrees(self, batch: Sequence[Charge], added: AddResult) -> None:
        assert all(each in batch for each in added.new)
        assert all(each == self.kept[each.appointment_id] for each in (*added.new, *added.existing))
        assert {each.appointment_id for each in batch} == {
            each.appointment_id for each in (*added.new, *added.existing)
        }

    @step(id_=ids)
    async def get(self, id_: UUID) -> None:
        await self._answers(id_, self.charges().get(id_))

    @step(id_=ids)
    async def wait_briefly(self, id_: UUID) -> None:
        """For one that is there the look-up may take its time."""
        await self._answers(id_, self.charges().wait_for(id_, self.suite.patience if id_ in self.kept else 0))

    @step(charge=charges())
    async def wait_for(self, charge: Charge) -> None:
        waiting = asyncio.create_task(self.charges().wait_for(charge.appointment_id, self.suite.patience))
        await asyncio.sleep(0)
        await self.charges().add([charge])
        self.kept.setdefault(charge.appointment_id, charge)
        assert await waiting == self.kept[charge.appointment_id]

    @step(
        physician=anyone,
        patient=anyone,
        since=st.none() | times,
        till=st.none() | times,
        limit=st.integers(1, 5),
        after=st.none() | places,
    )
    async def page(
        self,
        physician: UUID | None,
        patient: UUID | None,
        since: datetime | None,
        till: datetime | None,
        limit: int,
        after: ChargeCursor | None,
    ) -> None:
        wanted = ChargeFilter(physician, patient, since, till)
        expected = [
            each
            for each in self._newest()
            if is_charge_wanted(each, wanted) and (after is None or each.cursor < after)
        ]
        assert list(await self.charges().page(wanted, limit, after)) == expected[:limit]

    @step(limit=st.integers(1, 3))
    async def turn_every_page(self, limit: int) -> None:
        found: list[Charge] = []
        while page := await self.charges().page(ChargeFilter(), limit, found[-1].cursor if found else None):
            found += page
        assert found == self._newest()

    @step(limit=st.integers(1, 5), after=st.none() | ids)
    async def by_appointment(self, limit: int, after: UUID | None) -> None:
        expected = [
            self.kept[each] for each in sorted(self.kept, reverse=True) if after is None or each < after
        ]
        assert list(await self.charges().by_appointment(limit, after)) == expected[:limit]

    @step()
    async def count(self) -> None:
        assert await self.charges().count() == len(self.kept)

    @step()
    async def die(self) -> None:
        await self.charges.reopen()
        if not self.suite.survives:
            self.kept.clear()

    async def ends(self) -> None:
        """Every appointment that was ever charged has its first charge."""
        for id_ in IDS:
            await self._answers(id_, self.charges().get(id_))
        assert list(await self.charges().page(ChargeFilter(), 1000)) == self._newest()

    async def _answers(self, id_: UUID, asked: Awaitable[Charge]) -> None:
        try:
            assert await asked == self.kept.get(id_)
        except NotFound:
            assert id_ not in self.kept

    def _newest(self) -> list[Charge]:
        return sorted(self.kept.values(), key=attrgetter("cursor"), reverse=True)


def by_id(charges: Sequence[Charge]) -> dict[UUID, Charge]:
    return {each.appointment_id: each for each in charges}


def is_charge_wanted(charge: Charge, wanted: ChargeFilter) -> bool:
    return (
        wanted.physician_id in (None, charge.physician_id)
        and wanted.patient_id in (None, charge.patient_id)
        and (wanted.charged_from is None or wanted.charged_from <= charge.charged_at)
        and (wanted.charged_to is None or charge.charged_at < wanted.charged_to)
    )
