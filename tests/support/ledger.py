"""What clients were answered, compared in the end with what is kept: the proof that no charge is lost or
doubled.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import httpx
import msgspec

Json = dict[str, Any]

STORE_TRIES: Final = 30

_decoder = msgspec.json.Decoder(float_hook=Decimal)


def read(answer: httpx.Response) -> Any:
    """The JSON of an answer, its numbers with a point exact."""
    return _decoder.decode(answer.content)


BILLED: Final[Mapping[str, Callable[[int], int]]] = {
    "hours-begun": lambda seconds: seconds - seconds % 3600 + 3600,
    "whole-hours": lambda seconds: max(seconds - seconds % 3600, 3600),
    "pro-rata": lambda seconds: max(seconds, 3600),
}
"""The seconds that each policy bills, in words of this ledger's own."""


def due(appointment: Mapping[str, Any], pricing: str = "hours-begun") -> Decimal:
    """What a finished appointment costs under a policy, half a cent rounded up, reckoned from its printed
    dates alone.
    """
    elapsed = datetime.fromisoformat(appointment["end_date"]) - datetime.fromisoformat(
        appointment["start_date"]
    )
    exact = Decimal(appointment["price"]) * BILLED[pricing](elapsed.days * 86_400 + elapsed.seconds) / 3600
    return exact.quantize(Decimal("0.01"), ROUND_HALF_UP)


@dataclass
class History:
    """What clients were answered. An answer that was lost is a class of its own: such a request may have been
    done or not.
    """

    started: dict[str, Json] = field(default_factory=dict)
    finished: dict[str, Json] = field(default_factory=dict)
    perhaps_finished: set[str] = field(default_factory=set)
    seen: dict[str, Decimal] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    changed: set[str] = field(default_factory=set)
    requests: dict[str, Json] = field(default_factory=dict)
    """How each appointment was started that can be started again."""
    answered_at: dict[str, float] = field(default_factory=dict)
    """When an acknowledged finish was first heard of, in seconds since 1970."""
    surprises: set[str] = field(default_factory=set)
    """Answers that no service may give."""
    behaviours: Counter[str] = field(default_factory=Counter)
    """What people did besides asking once and waiting for the answer."""

    def acknowledged_start(self, appointment: Json) -> None:
        """Each time it is answered as it started."""
        self.behaviours["started again"] += appointment["id"] in self.started
        if self.started.setdefault(appointment["id"], appointment) != appointment:
            self.changed.add(appointment["id"])

    def acknowledged_finish(self, appointment: Json) -> None:
        self.behaviours["finished again"] += appointment["id"] in self.finished
        first = self.finished.setdefault(appointment["id"], appointment)
        self.answered_at.setdefault(appointment["id"], time.time())
        if (
            first != appointment
            or self.started.get(appointment["id"], first) | {"end_date": first["end_date"]} != first
        ):
            self.changed.add(appointment["id"])

    def saw_charge(self, appointment_id: str, total: Decimal) -> None:
        if self.seen.setdefault(appointment_id, total) != total:
            self.changed.add(appointment_id)

    def count(self, outcome: str) -> int:
        return sum(count for (_, each), count in self.outcomes.items() if each == outcome)

    @property
    def share(self) -> float:
        """Of all requests, how many were acknowledged."""
        return self.count("acknowledged") / max(1, self.outcomes.total())


@dataclass
class Kept:
    """What the services show in the end, page by page."""

    appointments: list[Json]
    charges: list[Json]


async def kept(http: httpx.AsyncClient, appointment_url: str, financial_url: str) -> Kept:
    """Everything that both services show."""
    return Kept(
        [each async for each in _all(http, appointment_url)],
        [each async for each in _all(http, financial_url)],
    )


async def _all(http: httpx.AsyncClient, url: str) -> AsyncIterator[Json]:
    after: Json = {}
    while True:
        answer = await _answered(http, f"{url}/", params={"limit": 100, **after})
        page = read(answer.raise_for_status())
        for each in page["items"]:
            yield each
        if page["next"] is None:
            return
        after = {"after": page["next"]}


async def _answered(http: httpx.AsyncClient, url: str, **more: Any) -> httpx.Response:
    """As soon as the store behind a service is back: a service may be ready before it."""
    for _ in range(STORE_TRIES):
        answer = await http.get(url, **more)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer
        await asyncio.sleep(float(answer.headers["Retry-After"]))
    return await http.get(url, **more)


async def shown_charges(http: httpx.AsyncClient, url: str, ids: list[str]) -> dict[str, Decimal | None]:
    """The total of each of these, asked for one by one, some at a time; None where there is no charge."""
    some = asyncio.Semaphore(8)

    async def show(appointment_id: str) -> Decimal | None:
        async with some:
            answer = await _answered(http, f"{url}/{appointment_id}/")
        return (
            None
            if answer.status_code == httpx.codes.NOT_FOUND
            else Decimal(read(answer.raise_for_status())["total_price"])
        )

    return dict(zip(ids, await asyncio.gather(*(show(each) for each in ids)), strict=True))


def sums(found: Kept) -> tuple[Decimal, Decimal]:
    """What all charges come to, and what all finished appointments cost, each under the policy that its
    charge names.
    """
    finished = [each for each in found.appointments if each["end_date"] is not None]
    policies = {each["appointment_id"]: _pricing(each) for each in found.charges}
    cost = (due(each, policies.get(each["id"], "hours-begun")) for each in finished)
    return sum((Decimal(each["total_price"]) for each in found.charges), Decimal(0)), sum(cost, Decimal(0))


@dataclass
class Comparison:
    """Every set is empty where the promise was kept."""

    lost: set[str]
    doubled: set[str]
    wrong: set[str]
    changed: set[str]
    unfounded: set[str]
    """Charges of what is not finished, and finishes that nobody asked for."""
    surprising: set[str]
    started_twice: set[str]
    """Several appointments of the same people: only who asks again asks for the same ones."""

    @property
    def breaches(self) -> dict[str, set[str]]:
        return {name.replace("_", " "): found for name, found in vars(self).items() if found}


def compare(history: History, found: Kept, shown: Mapping[str, Decimal | None]) -> Comparison:
    """Compare what was answered with what is kept; `shown` is what the financial service says of single
    appointments.
    """
    appointments = {each["id"]: each for each in found.appointments}
    finished = {id_: each for id_, each in appointments.items() if each["end_date"] is not None}
    times_charged = Counter(each["appointment_id"] for each in found.charges)
    charges = {each["appointment_id"]: each for each in found.charges}
    totals = {id_: Decimal(each["total_price"]) for id_, each in charges.items()}
    acknowledged = history.started | history.finished
    nobody_finished = finished.keys() - history.finished.keys() - history.perhaps_finished
    return Comparison(
        lost=(history.finished.keys() | finished.keys()) - times_charged.keys()
        | (acknowledged.keys() - appointments.keys()),
        doubled={id_ for id_, times in times_charged.items() if times > 1},
        wrong={
            id_
            for id_, total in totals.items()
            if id_ in finished
            and total != due(history.finished.get(id_, finished[id_]), _pricing(charges[id_]))
        }
        | {
            id_
            for id_, each in charges.items()
            if id_ in finished and _explained(each) != _explained(finished[id_])
        }
        | {id_ for id_, total in shown.items() if total != totals.get(id_)},
        changed=history.changed
        | {id_ for id_, total in history.seen.items() if totals.get(id_) != total}
        | {id_ for id_, each in history.finished.items() if appointments.get(id_) != each}
        | {
            id_
            for id_, each in history.started.items()
            if (appointments.get(id_, each) | {"end_date": None}) != each
        },
        unfounded=(times_charged.keys() - finished.keys()) | nobody_finished,
        surprising=history.surprises,
        started_twice=_started_twice([*found.appointments, *history.started.values()]),
    )


def _started_twice(appointments: Sequence[Json]) -> set[str]:
    ids = defaultdict[tuple[str, str], set[str]](set)
    for each in appointments:
        ids[each["physician_id"], each["patient_id"]].add(each["id"])
    return {id_ for same in ids.values() if len(same) > 1 for id_ in same}


def _pricing(charge: Json) -> str:
    return str(charge.get("pricing", "hours-begun"))


def _explained(record: Json) -> tuple[Any, ...]:
    return record["price"], record["start_date"], record["end_date"]
