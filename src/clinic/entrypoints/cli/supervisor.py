"""Both services side by side, each a process of its own: they start together and end together."""

import signal
import subprocess
import sys
import time
from collections.abc import Collection
from types import FrameType

from clinic.entrypoints.settings import Settings, url

SERVICES = ("appointment", "financial")
STOP_TIMEOUT = 10
POLL_INTERVAL = 0.05


def supervise(settings: Settings) -> int:
    """Run until asked to end, or until one of them ends by itself: then the other is stopped, and the answer
    is 1.
    """
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    # In groups of their own: a Ctrl-C in the terminal reaches this process alone, and each of them hears of
    # it once.
    processes = {
        name: subprocess.Popen([sys.executable, "-m", "clinic", "run", name], process_group=0)
        for name in SERVICES
    }
    _greet(settings)
    while not asked and all(process.poll() is None for process in processes.values()):
        time.sleep(POLL_INTERVAL)
    for name, process in processes.items():
        if not asked and process.poll() is not None:
            print(
                f"clinic: the {name} service has ended ({process.returncode}); stopping the other",
                file=sys.stderr,
            )
    _tell(processes.values())
    _await_end(processes.values(), asked)
    orderly = {0, -signal.SIGTERM, -signal.SIGINT}  # by a signal: where it was still starting
    return 0 if asked and all(process.returncode in orderly for process in processes.values()) else 1


def _greet(settings: Settings) -> None:
    appointments = url(settings.appointment_host, settings.appointment_port)
    charges = url(settings.financial_host, settings.financial_port)
    print(f"appointments  {appointments}/  (its documentation: /docs)")
    print(f"charges       {charges}/  (its documentation: /docs)")
    print(f"data          {settings.data_dir.absolute()}", flush=True)


def _tell(processes: Collection[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()


def _await_end(processes: Collection[subprocess.Popen[bytes]], asked: list[int]) -> None:
    give_up = time.monotonic() + STOP_TIMEOUT
    while any(process.poll() is None for process in processes):
        if time.monotonic() > give_up or asked.count(signal.SIGINT) > 1:
            for process in processes:
                process.kill()
        time.sleep(POLL_INTERVAL)
