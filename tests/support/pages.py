"""The console in this process, on both services in this process; a test can cut what is between them."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from litestar import Litestar

from clinic.entrypoints.console.app import create_app
from clinic.entrypoints.console.client import Service, Services
from clinic.entrypoints.console.view import maker
from clinic.entrypoints.service import Lifecycle
from support.apps import Clinic, Technology, WatchedTelemetry, client_of, settings

TOKEN = "0123456789abcdef"  # noqa: S105 — of no other services than these tests'


class Wire(httpx.AsyncBaseTransport):
    """Between the console and a service: notes what is asked. It can be cut."""

    def __init__(self, service: Callable[[], httpx.AsyncClient] | None) -> None:
        self._service = service
        self.asked: list[str] = []
        self.is_cut = service is None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.is_cut or self._service is None:
            raise httpx.ConnectError("All connection attempts failed")
        answer = await self._service().request(
            request.method,
            request.url.raw_path.decode(),
            content=await request.aread(),
            headers={name: value for name, value in request.headers.items() if name != "host"},
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def traces(self) -> int:
        """How many traces were asked for."""
        return sum(path.endswith("/trace/") for path in self.asked)


class Stream:
    """What an answer that does not end has sent, piece by piece: httpx's own transport waits for the end."""

    def __init__(self, app: Litestar, path: str) -> None:
        self._sent: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = asyncio.Event()
        self._asks = iter([{"type": "http.request", "body": b"", "more_body": False}])
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"console")],
            "client": ("127.0.0.1", 1),
            "server": ("console", 80),
        }
        self.answering = asyncio.create_task(app(cast("Any", scope), cast("Any", self._receive), self._send))

    async def _receive(self) -> dict[str, Any]:
        for message in self._asks:
            return message
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self._sent.put(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._left.set()  # as uvicorn says it, once the answer is whole

    async def next(self) -> bytes:
        """The next piece that is not empty."""
        while not (piece := await self._sent.get()):
            pass
        return piece

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()


class Pages:
    """The console of a clinic, and a browser without scripts."""

    def __init__(self, folder: Path, technology: Technology = "memory") -> None:
        self.clinic = Clinic(settings(technology, folder, operator_token=TOKEN))
        self.appointment = Wire(lambda: self.clinic.appointments)
        self.financial = Wire(lambda: self.clinic.charges)
        self.audit = Wire(None)
        self.services = Services(
            Service("appointment", "http://appointment", self.appointment),
            Service("financial", "http://financial", self.financial),
            Service("audit", "http://audit", self.audit),
        )
        self.telemetry = WatchedTelemetry("console")
        self.lifecycle = Lifecycle(self.telemetry)
        self.make_view = maker(settings("memory", folder))
        self.browser: httpx.AsyncClient

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Pages"]:
        """All three from their start to their end."""
        self.app = app = create_app(
            self.services, self.make_view, b"a secret of tests", self.telemetry, self.lifecycle
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.clinic.running())
            self.browser = await stack.enter_async_context(client_of(app))
            yield self

    def stream(self, path: str) -> "Stream":
        """A browser that listens at this path."""
        return Stream(self.app, path)

    async def charged(self) -> str:
        """The id of an appointment that is started, finished and charged."""
        its_id = await self.clinic.start()
        await self.clinic.finish(its_id)
        await self.clinic.charged(its_id)
        return its_id

    async def send(self, path: str, page: str = "/where", **fields: str) -> httpx.Response:
        """The answer to a form, with the token that this page gives it."""
        found = re.search(r'name="_csrf_token" value="([^"]+)"', (await self.browser.get(page)).text)
        assert found
        return await self.browser.post(path, data={"_csrf_token": found[1], **fields})

    async def sign_in(self) -> None:
        """As the operator."""
        answer = await self.send("/sign-in", by="anna", token=TOKEN)
        assert answer.status_code == 303, answer.text
