"""What lasts: load for an hour, a backlog of a million events, and one, two, four instances of each service.

    make bench-lasting WHAT=hour STACK=embedded MINUTES=60 RATE=20
    make bench-lasting WHAT=backlog STACK=real EVENTS=1000000
    make bench-lasting WHAT=instances STACK=real RATE=200 SECONDS=20 ROUNDS=3
    make bench-lasting WHAT=instances STACK=real EACH=25

Each wait has a bound, WITHIN seconds.
"""

import argparse
import signal
import sys
from contextlib import nullcontext
from typing import Final

import uvloop
from rich.console import Console

from benchmarks import backlog, instances, machine, procfs, servers, systems
from benchmarks.client import Connections, FellBehindError, new_appointment, open_loop
from benchmarks.figures import percentile
from benchmarks.session import SERVICES, Session, session, until
from benchmarks.table import aligned

PARTS: Final = 12
"""Of the time under load."""
HEADING: Final = [
    "part",
    "appointment, MB",
    "financial, MB",
    "CPU ms a finish",
    "p50, ms",
    "p99, ms",
    "charged",
]

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Measure and show."""
    args = _parser().parse_args()
    if args.what == "instances" and args.stack != "real":
        sys.exit("several instances need MongoDB and Kafka: STACK=real")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and leave no process or container behind
    console.print(f"{machine.machine()}, load before: {machine.load()}")
    system = systems.EMBEDDED if args.stack == "embedded" else systems.CLINIC
    with servers.running() if args.stack == "real" else nullcontext() as running:
        try:
            if args.what == "instances":
                assert running
                load = instances.Load(
                    rate=args.each or args.rate or 200,
                    of_each=args.each is not None,
                    seconds=args.seconds,
                    rounds=args.rounds,
                    within=args.within,
                )
                console.print(f"\n{aligned(instances.measure(system, running, load))}")
                return
            with session(system, running, 0) as opened:
                if args.what == "hour":
                    _hour(opened, args.minutes * 60, args.rate or 20, args.within)
                else:
                    console.print(f"\n{aligned(backlog.measure(opened, args.events, args.within))}")
        except FellBehindError:
            sys.exit("falls behind: less is answered than is asked")


def _hour(opened: Session, seconds: float, rate: float, within: float) -> None:
    for service in SERVICES:
        opened.start(service)
    visits = PARTS * round(seconds * rate / PARTS)
    memory = uvloop.run(_under_load(opened, visits // PARTS, rate))
    until(lambda: opened.stored.charges() >= visits, f"{visits:,} charges", within)
    for service in SERVICES:
        console.print(f"{service}, memory, last ÷ first: {memory[service][-1] / memory[service][0]:.3f}")
    finished, charges = opened.stored.finished(), opened.stored.charges()
    console.print(f"{visits:,} visits, {finished:,} finished, {charges:,} charged")
    if not visits == finished == charges:
        sys.exit("not one charge a finish")


async def _under_load(opened: Session, count: int, rate: float) -> dict[str, list[float]]:
    """So many starts, each with its finish, a part: memory of the services in bytes at the end of each."""
    appointments = Connections(opened.port("appointment"))
    memory: dict[str, list[float]] = {service: [] for service in SERVICES}

    async def visit(_: str) -> None:
        await appointments.ask(f"POST /{await new_appointment(appointments)}/")

    console.print(f"{count:,} starts and finishes a part, {rate:g}/s; a visit's time is that of both\n")
    for part in range(1, PARTS + 1):
        before = opened.snapshot()
        answered = await open_loop([""] * count, rate, visit)
        used = procfs.spent(before, opened.snapshot())
        took = [(each.answered - each.due) * 1e3 for each in answered]
        for service, sizes in memory.items():
            sizes.append(opened.memory(service))
        figures = [
            *(f"{sizes[-1] / 1e6:.1f}" for sizes in memory.values()),
            f"{sum(used.cpu.values()) * 1e3 / count:.2f}",
            *(f"{percentile(took, share):.1f}" for share in (0.5, 0.99)),
            f"{opened.stored.charges():,}",
        ]
        shown = aligned([HEADING, [f"{part}", *figures]]).splitlines()
        console.print("\n".join(shown if part == 1 else shown[1:]))  # as it comes: an hour is long
    appointments.close()
    return memory


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lasting", description="Measure what lasts.")
    parser.add_argument("--what", choices=("hour", "backlog", "instances"), default="hour")
    parser.add_argument("--stack", choices=("embedded", "real"), default="embedded")
    parser.add_argument("--minutes", type=float, default=60.0, help="under load")
    parser.add_argument("--rate", type=float, help="starts and finishes a second; 20, or 200 of instances")
    parser.add_argument(
        "--each", type=float, help="finishes a second of each instance, in place of all together"
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="of the backlog")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each number of instances")
    parser.add_argument("--rounds", type=int, default=3, help="of all numbers of instances")
    parser.add_argument("--within", type=float, default=3600.0, help="seconds that a wait may take")
    return parser


if __name__ == "__main__":
    main()
