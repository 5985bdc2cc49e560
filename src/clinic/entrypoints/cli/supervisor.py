"""Both services as two processes that start together and end together."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from time import monotonic
from types import FrameType, MappingProxyType

from clinic.entrypoints.parent import PARENT, STOP_TIMEOUT
from clinic.entrypoints.settings import Settings, url

PROGRAM = (sys.executable, "-m", "clinic")
SERVICES = ("appointment", "financial")
TOKEN = "CLINIC_OPERATOR_TOKEN"  # noqa: S105 — its name
"""One is made for a run that has none: the console's pages for operators are of no use without."""
POLL_INTERVAL = 0.05
FIRST_PAUSE, MAX_PAUSE = 0.5, 60.0
"""Seconds before a watcher is restarted; doubled each time that it runs for less than `MAX_PAUSE`."""

Command = Sequence[str]


def supervise(settings: Settings) -> int:
    """Run both services until asked to end, or until one of them ends by itself."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup`, a job in the background
            signal.signal(number, ask)
    services, beside = {name: (*PROGRAM, "run", name) for name in SERVICES}, watchers(settings)
    token = secrets.token_urlsafe(18) if "console" in beside and not settings.operator_token else ""
    made = {TOKEN: token} if token else {}
    if not settings.console_secret:  # so that a console that is started again knows who was signed in
        made["CLINIC_CONSOLE_SECRET"] = secrets.token_urlsafe(32)
    supervisor = Supervisor(services, beside, made)
    supervisor.start()
    _greet(settings, token)
    return supervisor.run(asked)


def watchers(settings: Settings) -> Mapping[str, Command]:
    """Audit and console, unless they are set to off, or their folders were left out."""
    found: dict[str, Command] = {}
    if settings.audit_every != "off" and find_spec("clinic.entrypoints.watcher"):
        found["audit"] = (*PROGRAM, "audit", "--every", settings.audit_every)
    if settings.console == "on" and has_console():
        found["console"] = (*PROGRAM, "run", "console")
    return found


def has_console() -> bool:
    """Whether its folder is here, and what it needs is installed: `clinic[console]`."""
    needed = ("clinic.entrypoints.console", "babel", "cryptography", "httpx", "jinja2")
    if not all(find_spec(name) for name in needed):
        return False
    return find_spec("clinic.entrypoints.console.main") is not None  # not what git leaves of a deleted folder


class Supervisor:
    """Runs children: when a service ends all end, and a watcher that ends is started again.

    All end with this process, however it ends: they watch a pipe that it holds open.
    """

    def __init__(
        self,
        services: Mapping[str, Command],
        watchers: Mapping[str, Command],
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`extra`: variables of the children, beside those of this process."""
        self._read, self._write = os.pipe()
        given = {PARENT: str(self._read), **extra}
        self._services = {
            name: _Child(name, command, self._read, given) for name, command in services.items()
        }
        self._watchers = {
            name: _Watcher(name, command, self._read, given) for name, command in watchers.items()
        }

    def start(self) -> None:
        for child in self._children:
            child.start()

    def run(self, asked: Sequence[int]) -> int:
        """Return 0 once all have ended because a signal is in `asked`, 1 if a service ended by itself."""
        while not asked and all(service.exit_code is None for service in self._services.values()):
            for watcher in self._watchers.values():
                watcher.look_after()
            time.sleep(POLL_INTERVAL)
        for name, service in self._services.items():
            if not asked and service.exit_code is not None:
                print(
                    f"clinic: the {name} service has ended ({service.exit_code}); stopping the rest",
                    file=sys.stderr,
                )
        self._stop(asked)
        orderly = {0, -signal.SIGTERM, -signal.SIGINT}  # by a signal: if it was still starting
        return 0 if asked and all(child.exit_code in orderly for child in self._services.values()) else 1

    @property
    def is_running(self) -> bool:
        """Whether any child does."""
        return any(child.is_running for child in self._children)

    @property
    def _children(self) -> "Sequence[_Child]":
        return [*self._services.values(), *self._watchers.values()]

    def _stop(self, asked: Sequence[int]) -> None:
        for child in self._children:
            child.terminate()
        give_up = monotonic() + STOP_TIMEOUT
        while self.is_running:
            if monotonic() > give_up or asked.count(signal.SIGINT) > 1:
                for child in self._children:
                    child.kill()
            time.sleep(POLL_INTERVAL)


class _Child:
    """A command as a process."""

    def __init__(self, name: str, command: Command, parent: int, extra: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._parent, self._extra = parent, extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and before."""
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        # In a group of its own: a Ctrl-C in the terminal reaches this process alone, and the child once.
        self._process = subprocess.Popen(
            self._command,
            process_group=0,
            pass_fds=[self._parent],
            env={**os.environ, **self._extra},
        )

    def terminate(self) -> None:
        if self._process and self.is_running:
            self._process.terminate()

    def kill(self) -> None:
        if self._process and self.is_running:
            self._process.kill()


class _Watcher(_Child):
    """A child that nothing depends on."""

    _pause = FIRST_PAUSE
    _started_at = 0.0
    _restart_at = 0.0

    def start(self) -> None:
        self._started_at, self._restart_at = monotonic(), 0.0
        try:
            super().start()
        except OSError as error:  # no memory, no program any more: that is no reason to end the services
            print(f"clinic: the {self.name} cannot be started: {error}", file=sys.stderr)

    def look_after(self) -> None:
        """Report that it has ended, and start it again after a pause."""
        if self.is_running:
            return
        if not self._restart_at:
            self._pause = FIRST_PAUSE if monotonic() - self._started_at > MAX_PAUSE else self._pause
            self._restart_at = monotonic() + self._pause
            print(
                f"clinic: the {self.name} ended ({self.exit_code}); starting it again in {self._pause:g} s",
                file=sys.stderr,
            )
            self._pause = min(2 * self._pause, MAX_PAUSE)
        elif monotonic() >= self._restart_at:
            self.start()


def _greet(settings: Settings, token: str) -> None:
    appointments = url(settings.appointment_host, settings.appointment_port)
    charges = url(settings.financial_host, settings.financial_port)
    print(f"appointments  {appointments}/  (its documentation: /docs)")
    print(f"charges       {charges}/  (its documentation: /docs)")
    beside = watchers(settings)
    if "audit" in beside:
        print(f"audit         {url(settings.audit_host, settings.audit_port)}/findings/")
    if "console" in beside:
        print(f"console       {url(settings.console_host, settings.console_port)}/")
    if token:
        print(f"operator      {token}  (of this run; set {TOKEN} to keep one)")
    print(f"data          {settings.data_dir.absolute()}", flush=True)
