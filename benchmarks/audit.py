"""How long `clinic audit` takes over a long history, and how much memory it needs.

    .venv/bin/python benchmarks/audit.py [appointments]

Fills a fresh folder (or, with CLINIC_STORE=mongo and CLINIC_MONGO_URL, a fresh database) with finished
appointments and
their charges, leaves out one charge in 100,000, and runs the command as a process of its own.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import uuid_utils.compat
from rich.console import Console

from clinic.domain.appointment.model import Appointment
from clinic.domain.financial.model import Charge
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.messaging.messages import Origin, Received
from clinic.domain.money import Money
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings, load

BATCH = 1000
LEFT_OUT = 100_000
START, END = datetime(2020, 12, 1, 13, tzinfo=UTC), datetime(2020, 12, 1, 14, tzinfo=UTC)


def a_finished() -> Appointment:
    ids = uuid_utils.compat.uuid7(), uuid4(), uuid4()
    return Appointment(
        id=ids[0], physician_id=ids[1], patient_id=ids[2], price=Money("200.00"), start=START, end=END
    )


def charges_of(some: Sequence[Appointment], first: int) -> Sequence[Charge]:
    return [
        Charge.for_finished(
            Received(
                each.finished_event, Origin(position=f"log/{number}", published_at=END, received_at=END)
            ),
            POLICIES["hours-begun"],
            END,
        )
        for number, each in enumerate(some, first)
        if each.finished_event and number % LEFT_OUT
    ]


async def fill(settings: Settings, appointments: int) -> None:
    appointment, financial = AppointmentContainer(settings=settings), FinancialContainer(settings=settings)
    store, charges = appointment.appointments(), financial.charges()
    opened = [appointment.store().resource, financial.store().resource]
    for each in opened:
        await each.open()
    for first in range(0, appointments, BATCH):
        some = [a_finished() for _ in range(BATCH)]
        await asyncio.gather(*(store.add(each) for each in some))
        await charges.add(charges_of(some, first))
    for each in opened:
        await each.close()


def main() -> None:
    appointments = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        name = f"audit-{uuid4().hex[:8]}"
        own = os.environ | {"CLINIC_DATA_DIR": folder, "CLINIC_MONGO_DATABASE": name}
        settings = load(own)
        began = time.perf_counter()
        asyncio.run(fill(settings, appointments))
        console.print(
            f"{settings.store}: {appointments:,} appointments and their charges kept in "
            f"{time.perf_counter() - began:.0f} s"
        )
        began = time.perf_counter()
        command = [sys.executable, "-m", "clinic", "audit", "--json"]
        audited = subprocess.run(command, env=own, stdout=subprocess.PIPE, check=False)
        took = time.perf_counter() - began
    summary = json.loads(audited.stdout.splitlines()[-1])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    console.print(
        f"audited in {took:.0f} s, {appointments / took:,.0f}/s, peak {peak:.0f} MiB, exit "
        f"{audited.returncode}: {summary}"
    )


if __name__ == "__main__":
    main()
