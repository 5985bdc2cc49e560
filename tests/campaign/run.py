"""A campaign from its first start to the checker's answer."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from support.ledger import History, Kept, kept, shown_charges

from campaign.checker import Found, breaches, shortcomings
from campaign.clients import CampaignClient
from campaign.evidence import gathered
from campaign.messages import ForeignMessages, Letter
from campaign.nemesis import Happened, Nemesis
from campaign.plan import Kind, Options, epilogue, kinds, lane
from campaign.stacks import PROBLEMS, Stack, fixed
from campaign.supervisor import DidNotComeBack, Supervisor

AT_MOST = 3.0
"""How many times the planned minutes, and four minutes, a campaign waits for what it still wants."""
PROBLEM_TIMEOUT = 25.0
"""Seconds in which something must have succeeded: readiness names a failure until then."""
START_TIMEOUT = 120.0
"""Seconds after which each service is ready, whatever it has to be started again for."""
LEFT_TIMEOUT = 120.0
"""Seconds after which the last of those who ask has an answer, once all is up."""
QUIET_TIMEOUT = 180.0
"""Seconds after which nothing is on its way any more, however steadily it moves."""
FOLLOWS_TIMEOUT = LEFT_TIMEOUT + QUIET_TIMEOUT
"""Seconds that a campaign may last beyond the bound of its load: then it ends, whatever it waits for."""
ASKED_ONE_BY_ONE = 2_000


@dataclass
class Progress:
    """What a person may see of a campaign under way."""

    options: Options
    history: History
    journal: Sequence[Happened]
    began: float
    wanted: int
    stage: str = "load and faults"
    waits_for: str = ""
    """What the stage cannot end without, where that is known."""

    def enter(self, stage: str, waits_for: str = "") -> None:
        self.stage, self.waits_for = stage, waits_for

    @property
    def happened(self) -> int:
        return len({(each.fault.action, each.fault.where) for each in self.journal})


@dataclass
class Outcome:
    """A campaign that is over."""

    options: Options
    found: Found
    journal: Sequence[Happened]
    recoveries: Mapping[str, Sequence[float]]
    began: float
    ended: float
    breaches: Mapping[str, Sequence[object]]
    shortcomings: Sequence[str]


async def prove(options: Options, stack: Stack, watch: Callable[[Progress], None]) -> Outcome:
    """Load and faults until there is enough of both; then peace, until nothing moves any more; then the
    ledger.
    """
    async with httpx.AsyncClient(
        timeout=40, trust_env=False, limits=httpx.Limits(max_connections=200)
    ) as http:
        try:
            return await Campaign(options, stack, http, watch).run()
        finally:
            for service in (each for instances in stack.services.values() for each in instances):
                service.clean_up()


class Still:
    """For how long nothing has become less than it ever was."""

    def __init__(self) -> None:
        self._least: list[int] | None = None
        self._moved = time.monotonic()

    def seconds(self, *counts: int) -> float:
        least = list(map(min, self._least or counts, counts))
        if least != self._least:
            self._least, self._moved = least, time.monotonic()
        return time.monotonic() - self._moved


@dataclass
class Ledger:
    """What the services show and keep once all is quiet."""

    kept: Kept = field(default_factory=lambda: Kept([], []))
    shown: Mapping[str, Any] = field(default_factory=dict)
    left: Mapping[str, Any] = field(default_factory=dict)
    dead_letters: Sequence[Letter] = ()
    audit: Sequence[str] = ()


class Campaign:
    """`supervisors` are those of each context's instances."""

    def __init__(
        self, options: Options, stack: Stack, http: httpx.AsyncClient, watch: Callable[[Progress], None]
    ) -> None:
        self.options = options
        self.stack = stack
        self._http = http
        self._watch = watch
        self.history = History()
        self.supervisors = {
            context: [
                Supervisor(each, self._rng(each.name), fixed(options), stack.control.is_doomed)
                for each in found
            ]
            for context, found in stack.services.items()
        }
        self._foreign = ForeignMessages(stack.control, self.history, self._rng("messages"))
        self._kinds = kinds(options)
        self._nemesis = Nemesis(
            stack.control,
            self.supervisors,
            self._foreign,
            stack.actions(self.supervisors),
            self.history,
            self._rng("nemesis"),
            options.over,
        )
        self._ended: float | None = None
        self._progress = Progress(
            options, self.history, self._nemesis.journal, time.time(), len(self._wanted)
        )

    @property
    def _wanted(self) -> list[Kind]:
        return [kind for kinds_ in self._kinds.values() for kind in kinds_]

    @property
    def _all_supervisors(self) -> list[Supervisor]:
        return [supervisor for supervisors in self.supervisors.values() for supervisor in supervisors]

    def _rng(self, whose: str) -> random.Random:
        return random.Random(f"{self.options.seed} {whose}")  # noqa: S311 — a seeded plan

    async def run(self) -> Outcome:
        found, failure, seconds = Ledger(), None, self._bound + FOLLOWS_TIMEOUT
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                found = await self._found()
        except Exception as error:  # noqa: BLE001 — whatever a service does, the campaign reports it
            said = [f"not over within {seconds:g} s"] if limit.expired() else _said(error)
            waited = f" (waiting for {self._progress.waits_for})" if self._progress.waits_for else ""
            failure = f"{self._progress.stage}{waited}: {'; '.join(said)}"
        return await self._checked(found, failure)

    async def _found(self) -> Ledger:
        async with _together(supervisor.run() for supervisor in self._all_supervisors):
            await self._start()
            await self._load()
            self._ended = time.time()
            await self._all_up()
            self._progress.enter("waiting until all is quiet")
            left = await self._quiet()
            self._progress.enter("ledger")
            stored = await kept(self._http, *self._some_urls)
            shown = await shown_charges(
                self._http, self._some_urls[1], list(self.history.started)[-ASKED_ONE_BY_ONE:]
            )
            return Ledger(
                stored,
                shown,
                left,
                await asyncio.to_thread(self.stack.dead_letters),
                await self.stack.audited(),
            )

    async def _checked(self, ledger: Ledger, failure: str | None) -> Outcome:
        began, ended = self._progress.began, self._ended or time.time()
        codes = await asyncio.gather(*(supervisor.ended() for supervisor in self._all_supervisors))
        ends = {
            supervisor.service.name: code
            for supervisor, code in zip(self._all_supervisors, codes, strict=True)
        }
        evidence = gathered(
            [supervisor.service for supervisor in self._all_supervisors],
            self.stack.control,
            leases_outlive_processes=self.options.stack == "real",
        )
        foreign = self._foreign.sent()
        found = Found(
            self.history,
            ledger.kept,
            ledger.shown,
            evidence,
            ledger.left,
            foreign,
            ledger.dead_letters,
            ends,
            self._foreign.contradicted,
            failure,
            ledger.audit,
            self._by_itself,
        )
        return Outcome(
            self.options,
            found,
            self._nemesis.journal,
            {supervisor.service.name: supervisor.recoveries for supervisor in self._all_supervisors},
            began,
            ended,
            breaches(found),
            shortcomings(self.history, self.options, self._wanted, self._nemesis.journal, ended - began),
        )

    async def _start(self) -> None:
        for supervisor in self._all_supervisors:
            supervisor.service.start()
        for supervisor in self._all_supervisors:
            with suppress(AssertionError):  # servers of a busy machine may not answer a first start
                await supervisor.service.ready()
                supervisor.up.set()
            await supervisor.ready(within=START_TIMEOUT)

    async def _load(self) -> None:
        enough, waiting_room = asyncio.Event(), list[str]()
        urls = self._urls("appointment"), self._urls("financial")
        faults = [
            self._nemesis.run(lane(name, found, self.options), self.options.share)
            for name, found in self._kinds.items()
        ]
        async with asyncio.TaskGroup() as group:
            clients = [
                CampaignClient(self._http, urls, self.history, rng, self.options.pace)
                for rng in map(self._rng, self._clients)
            ]
            working = [group.create_task(client.work(enough, waiting_room)) for client in clients]
            async with _together(faults) as lanes:
                await self._until_enough(lanes)
            await self._all_up()
            self._progress.enter("the same errors once more")
            await asyncio.gather(
                *(
                    self._nemesis.run(epilogue(name, found, self.options))
                    for name, found in self._kinds.items()
                )
            )
            await self._nemesis.gather_last_batches()
            enough.set()
            await self._all_left(working)

    async def _all_left(self, working: Sequence[asyncio.Task[None]]) -> None:
        self._progress.enter("waiting for the last answers")
        _, still_there = await asyncio.wait(working, timeout=LEFT_TIMEOUT)
        if still_there:
            raise DidNotComeBack(
                f"{len(still_there)} people still wait for answers after {LEFT_TIMEOUT:.0f} s"
            )

    async def _until_enough(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        """Until then, or until something that was to come back did not."""
        begin, seconds = time.monotonic(), self.options.minutes * 60
        while not self._is_enough(time.monotonic() - begin, seconds) and not any(
            _failed(each) for each in lanes
        ):
            self._watch(self._progress)
            await asyncio.sleep(0.2)

    def _is_enough(self, passed: float, seconds: float) -> bool:
        if passed > self._bound:
            return True
        progress = self._progress
        return (
            passed >= seconds
            and len(self.history.started) >= self.options.appointments
            and len(progress.journal) >= self.options.faults
            and progress.happened >= progress.wanted
        )

    @property
    def _bound(self) -> float:
        """Of the load, in seconds."""
        return self.options.bound or AT_MOST * 60 * self.options.minutes + 240

    async def _all_up(self) -> None:
        for point in (self.stack.control.folder / "armed").iterdir():
            self.stack.control.disarm(point.name)
        await asyncio.sleep(0.1)
        for supervisor in self._all_supervisors:
            self._progress.enter("waiting until all are up", supervisor.service.name)
            supervisor.resume()
            await supervisor.ready(within=60)

    async def _quiet(self) -> Mapping[str, Any]:
        """What is left on the way when nothing is, or nothing has moved for as long as patience lasts."""
        finished = [
            each["id"]
            for each in (await kept(self._http, *self._some_urls)).appointments
            if each["end_date"] is not None
        ]
        began, still = time.monotonic(), Still()
        while True:
            self._watch(self._progress)
            shown = await shown_charges(self._http, self._some_urls[1], finished)
            finished = [id_ for id_, total in shown.items() if total is None]
            left = await self.stack.left(self._http)
            if not finished and not left:
                return left
            self._progress.waits_for = f"{len(finished)} charges, {left}"
            patience = PROBLEM_TIMEOUT if self._only_problems(finished, left) else self.options.patience
            if (
                still.seconds(len(finished), left.get("unacknowledged", 0)) > patience
                or time.monotonic() - began > QUIET_TIMEOUT
            ):
                return left
            await asyncio.sleep(0.2)

    def _only_problems(self, uncharged: Sequence[str], left: Mapping[str, Any]) -> bool:
        return not uncharged and set(left) == {PROBLEMS}

    @property
    def _by_itself(self) -> list[str]:
        return [
            f"{supervisor.service.name}: {code}"
            for supervisor in self._all_supervisors
            for code in supervisor.ends
        ]

    @property
    def _some_urls(self) -> tuple[str, str]:
        return self._urls("appointment")[0], self._urls("financial")[0]

    def _urls(self, context: str) -> list[str]:
        return [each.url for each in self.stack.services[context]]

    @property
    def _clients(self) -> list[str]:
        return [f"client {number}" for number in range(self.options.clients)]


@asynccontextmanager
async def _together(work: Iterable[Any]) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Inside, these go on; they are cancelled afterwards. What one of them raises is raised here."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _said(error: BaseException) -> list[str]:
    """What went wrong, also where several things did at once."""
    if isinstance(error, BaseExceptionGroup):
        return [said for each in error.exceptions for said in _said(each)]
    return [f"{type(error).__name__} {error}".strip()]
