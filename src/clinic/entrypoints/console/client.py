"""The services as the console knows them: what they answer over HTTP, and how they may fail."""

from collections.abc import Awaitable, Mapping
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import httpx
import msgspec
from msgspec import Struct

from clinic.domain.errors import ClinicError, NotFound, Refused, Unavailable
from clinic.domain.money import Money

CONNECT_TIMEOUT: Final = 2.0
READ_TIMEOUT, WRITE_TIMEOUT = 4.0, 10.0
"""Seconds. A page is soon shown without what nobody answers; a change has the time of a "not now"."""
MAX_CONNECTIONS: Final = 50
MAX_REASON: Final = 500

T = TypeVar("T")


class Away(Unavailable):
    """A service did not answer, or said "not now". For a write: its outcome is unknown."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(reason)
        self.service = service


class Declined(Refused):
    """A service refused what it was asked, and says why."""


class SignedOut(Refused):
    """The token that was given is not the operator's, or is no longer."""


class _Problem(Struct):
    detail: str = ""
    errors: list[dict[str, str]] = []


class Page(Struct, Generic[T], frozen=True):
    """Some items of a list; `next` continues it."""

    items: list[T]
    next: str | None


class Service:
    """One service, at an address."""

    def __init__(self, name: str, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.name, self.url = name, url
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"User-Agent": "clinic-console"},
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            transport=transport,
            trust_env=False,
        )

    async def get(
        self, shape: type[T], path: str, query: Mapping[str, Any] | None = None, *, token: str = ""
    ) -> T:
        """What it answers. Raises `NotFound`, `Declined`, `SignedOut` and `Away`."""
        given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        return self._decoded(shape, await self._ask("GET", path, params=given, headers=_bearer(token)))

    async def post(
        self, shape: type[T], path: str, body: object = None, *, token: str = "", key: str = ""
    ) -> T:
        """Ask it to change something; `key` makes a repetition safe. Raises as `get` does."""
        content = None if body is None else msgspec.json.encode(body)
        timeout = httpx.Timeout(WRITE_TIMEOUT, connect=CONNECT_TIMEOUT)
        headers = _bearer(token) | ({"Content-Type": "application/json"} if content else {})
        headers |= {"Idempotency-Key": key} if key else {}
        return self._decoded(
            shape, await self._ask("POST", path, content=content, headers=headers, timeout=timeout)
        )

    async def health(self, shape: type[T]) -> T:
        """What it says of itself, ready or not."""
        return self._decoded(shape, await self._answered("GET", "/health/ready"))

    async def metrics(self) -> str:
        """What Prometheus would read."""
        return (await self._ask("GET", "/metrics")).text

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = await self._answered(method, path, **options)
        if answer.is_success:
            return answer
        raise self._error(answer)

    async def _answered(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Away(self.name, str(error) or type(error).__name__) from error

    def _decoded(self, shape: type[T], answer: httpx.Response) -> T:
        try:
            return msgspec.json.Decoder(shape, dec_hook=_hook, float_hook=Decimal).decode(answer.content)
        except msgspec.DecodeError as error:  # something else listens there: a proxy's page, another service
            raise Away(self.name, f"{self.url} answers something else: {error}") from error

    def _error(self, answer: httpx.Response) -> ClinicError:
        try:
            problem = msgspec.json.decode(answer.content, type=_Problem)
        except msgspec.DecodeError:
            problem = _Problem()  # a proxy in between
        fields = "; ".join(f"{error.get('field')} {error.get('problem')}" for error in problem.errors)
        reason = (fields or problem.detail or answer.reason_phrase)[:MAX_REASON]
        if answer.is_server_error:
            return Away(self.name, reason)
        kinds: dict[int, type[ClinicError]] = {401: SignedOut, 404: NotFound}
        return kinds.get(answer.status_code, Declined)(reason)


class Services(Struct, frozen=True):
    """All that the console asks."""

    appointment: Service
    financial: Service
    audit: Service

    async def close(self) -> None:
        for service in (self.appointment, self.financial, self.audit):
            await service.close()


async def or_away(away: list[Away], asked: Awaitable[T]) -> T | None:
    """The answer; None where the service is away, which is noted once."""
    try:
        return await asked
    except Away as error:
        if error.service not in {each.service for each in away}:
            away.append(error)
        return None


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _hook(kind: type, value: object) -> Any:
    if kind is Money:
        return Money(str(value))
    raise NotImplementedError(kind)
