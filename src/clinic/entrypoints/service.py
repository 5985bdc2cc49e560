"""A service's lifecycle: what it opens, the loop behind it, and an end that loses nothing."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import uvicorn
from litestar import Litestar

from clinic.domain.errors import ClinicError, Misconfigured, NotNow, Unavailable
from clinic.domain.messaging.ports import Monitored, Resource
from clinic.entrypoints.protocol import BoundedProtocol
from clinic.entrypoints.settings import url
from clinic.entrypoints.telemetry import LoggingTelemetry

T = TypeVar("T")

REQUESTS_TIMEOUT = 3
LOOP_TIMEOUT = 1.5
LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the threads behind a service still run."""


class Stopping(Unavailable):
    """The service was asked to end."""


class Lifecycle:
    """Whether a service keeps running. A failure is kept for the caller that started it."""

    def __init__(self, telemetry: LoggingTelemetry) -> None:
        self._telemetry = telemetry
        self._stopping = asyncio.Event()
        self._resources: Sequence[object] = ()
        self._loop: asyncio.Task[None] | None = None
        self._asked_to_end: list[asyncio.Task[None]] = []
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Ask it to end; what waits ends at once."""
        self._stopping.set()

    async def stopped(self) -> None:
        """Return once it is asked to end."""
        await self._stopping.wait()

    def fail(self, event: str, error: BaseException) -> None:
        """Stop the service: something it needs has ended. An unexpected error is logged once."""
        is_logged = repr(error) == repr(self.failure)  # by a thread's end and by the loop that met it
        self.failure = self.failure or error
        self.stop()
        if not is_logged and not isinstance(error, ClinicError):
            with contextlib.suppress(Exception):
                self._telemetry.failed(event, error)

    def check_alive(self) -> None:
        """Raise `Unavailable` if the loop or a thread behind the service has ended: it asks them.

        The service ends with them: a loop that waits for what a thread would bring never hears of its end.
        """
        if self._loop is None or self._loop.done():
            raise Unavailable("the loop behind the service has ended")
        for resource in self._resources:
            if isinstance(resource, Monitored):
                self._check_threads(resource)

    def _check_threads(self, resource: Monitored) -> None:
        try:
            resource.check_alive()
        except NotNow:
            raise
        except BaseException as error:  # also a panic of a library
            if not self._stopping.is_set():
                self.fail("a thread behind the service ended", error)
            raise Unavailable(str(error)) from error

    async def _watch_threads(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            with contextlib.suppress(NotNow):
                self.check_alive()

    async def unless_stopping(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. Raises `Stopping` when the service is asked to end first."""
        working, stopped = asyncio.create_task(work), asyncio.create_task(self.stopped())
        try:
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Stopping("the service is stopping")
        finally:
            stopped.cancel()
            if working.cancel():  # what it has begun it ends, before anything is closed beneath it
                await asyncio.wait([working], timeout=LOOP_TIMEOUT)

    @contextlib.asynccontextmanager
    async def lifespan(
        self, resources: Callable[[], Sequence[Resource]], loop: Callable[[], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[None]:
        """Open the resources and run the loop behind the service.

        At the end the loop finishes its batch, and the resources are closed in reverse order.
        """
        asyncio.get_running_loop().set_exception_handler(self._unheard)
        try:
            async with contextlib.AsyncExitStack() as stack:
                self._resources = opened = resources()
                for resource in opened:
                    stack.push_async_callback(resource.close)
                    await self.unless_stopping(resource.open())  # a server that is silent answers late
                self._loop = self._started(loop(), stack)
                self._started(self._watch_threads(), stack)
                yield
        except Stopping:  # before it had started
            raise
        except BaseException as error:
            self.fail("could not start or end", error)
            raise

    def _unheard(self, _: asyncio.AbstractEventLoop, said: dict[str, Any]) -> None:
        """An error in a callback, or in a task that nobody asked: it is told like everything unforeseen."""
        self._telemetry.failed("unforeseen", said.get("exception") or RuntimeError(said["message"]))

    def _started(
        self, loop: Coroutine[Any, Any, None], stack: contextlib.AsyncExitStack
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(loop)
        task.add_done_callback(self._ended)
        stack.push_async_callback(self._end, task)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and task not in self._asked_to_end:
            error = RuntimeError(f"it was {'cancelled' if task.cancelled() else 'over'} before its service")
        if error is not None:
            self.fail("the loop behind the service ended", error)

    async def _end(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._asked_to_end.append(task)
        for _ in range(2):  # the second time it does not end its batch first
            task.cancel()
            await asyncio.wait([task], timeout=LOOP_TIMEOUT)


class _Server(uvicorn.Server):
    """Leaves the signals to `serve`: one handler for all the services of a process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Service:
    """An app, its lifecycle, and where it listens."""

    def __init__(
        self, app: Litestar, lifecycle: Lifecycle, host: str, port: int, variable: str, keep_alive: int
    ) -> None:
        self._lifecycle = lifecycle
        self._socket = _bound(host, port, variable)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=keep_alive,
                timeout_graceful_shutdown=REQUESTS_TIMEOUT,
            )
        )
        self.url = url(host, port)

    def stop(self) -> None:
        self._lifecycle.stop()

    async def run(self) -> None:
        """Serve until the service is asked to end. Raises what made it fail."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._server.serve(sockets=[self._socket])
        except SystemExit as end:  # the lifespan did not begin; `failure` says why
            if not self._lifecycle.failure and not self._server.should_exit:
                raise Unavailable("the service did not start") from end
        finally:
            watching.cancel()
            self._socket.close()
        if failure := self._lifecycle.failure:
            raise failure if isinstance(failure, Exception) else RuntimeError(repr(failure)) from failure

    async def _watch(self) -> None:
        await self._lifecycle.stopped()
        self._server.should_exit = True


async def serve(*services: Service) -> None:
    """Run them until SIGTERM or Ctrl-C, or until one ends: then all do. Raises what made the first one fail.

    A second Ctrl-C ends the process at once: a crash loses nothing here.
    """
    interrupted = False

    def stop() -> None:
        for service in services:
            service.stop()

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            os._exit(130)
        interrupted = True
        stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    for number, handler in ((signal.SIGINT, interrupt), (signal.SIGHUP, stop)):
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup`, a job in the background
            loop.add_signal_handler(number, handler)
    running = [asyncio.create_task(service.run()) for service in services]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    stop()
    for ended in await asyncio.gather(*running, return_exceptions=True):
        if ended is not None:
            raise ended


def _bound(host: str, port: int, variable: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a name with an empty or too long part is not even looked up
        reason = error.strerror if isinstance(error, OSError) else "it is not a name"
        raise Misconfigured(
            f"{host} is not an address of this machine: {reason}. Set {variable}_HOST"
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise Misconfigured(
            f"{url(host, port)} cannot be used: {error.strerror}. Set {variable}_HOST or {variable}_PORT"
        ) from error
    return listening
