"""What OpenTelemetry raises ends here: it is counted and logged, and what is watched goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from clinic.domain.events import AppointmentFinished
from clinic.domain.messaging.dead_letters import DeadLetter
from clinic.domain.messaging.messages import Delivery, Message, Received
from clinic.entrypoints.otel.spans import SpanTracing
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.trace_context import TraceContext
from clinic.entrypoints.tracing import Report, Tracing

T = TypeVar("T")

Contexts = Mapping[str, TraceContext]


def guarded_spans(service: str, transport: str, telemetry: LoggingTelemetry) -> Tracing:
    """Spans, of which no error reaches the service."""
    return GuardedTracing(SpanTracing(service, transport, telemetry), telemetry)


class GuardedTracing(Tracing):
    """Does as another one does, and where that raises, passes the trace on as text.

    A sampler, a processor or an attribute that fails costs a span; the work around it is done once, and its
    own error is its caller's.
    """

    def __init__(self, tracing: Tracing, telemetry: LoggingTelemetry) -> None:
        self._tracing = tracing
        self._guard = guard = _Guard(telemetry)
        telemetry.count("clinic_spans_failed", "Errors of OpenTelemetry.", lambda: guard.failures)

    def begin_request(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Any:
        with self._guard:
            return self._tracing.begin_request(method, path, headers)
        return super().begin_request(method, path, headers)

    def end_request(self, begun: Any, route: str, method: str, status: int) -> None:
        with self._guard:
            self._tracing.end_request(begun, route, method, status)

    def creating(self, events: Sequence[Message]) -> AbstractContextManager[Sequence[Message]]:
        plain = partial(super().creating, events)
        return _Moment(self._guard, partial(self._tracing.creating, events), plain)

    def sending(
        self, batch: Sequence[Message], contexts: Contexts
    ) -> AbstractContextManager[Sequence[Message]]:
        plain = partial(super().sending, batch, contexts)
        return _Moment(self._guard, partial(self._tracing.sending, batch, contexts), plain)

    def received(self, batch: Sequence[Delivery], contexts: Contexts) -> None:
        with self._guard:
            self._tracing.received(batch, contexts)

    def charging(self, finished: Sequence[Received[AppointmentFinished]]) -> AbstractContextManager[Report]:
        plain = partial(super().charging, finished)
        return _Moment(self._guard, partial(self._charging, finished), plain)

    @contextmanager
    def _charging(self, finished: Sequence[Received[AppointmentFinished]]) -> Iterator[Report]:
        with self._tracing.charging(finished) as report:

            def guarded(outcomes: Sequence[Any]) -> None:
                with self._guard:
                    report(outcomes)

            yield guarded

    def dead_lettered(self, letters: Sequence[DeadLetter]) -> None:
        with self._guard:
            self._tracing.dead_lettered(letters)

    async def end(self) -> None:
        with self._guard:
            await self._tracing.end()


class _Guard:
    """Inside, no error goes further. The first is logged with its traceback; one that repeats would flood."""

    def __init__(self, telemetry: LoggingTelemetry) -> None:
        self._telemetry = telemetry
        self.failures = 0

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failures += 1
        if self.failures == 1:
            self._telemetry.failed("spans fail", error)
        return True


class _Moment(AbstractContextManager[T], Generic[T]):
    """Around some work: an error on the way in or out is the guard's; that of the work passes."""

    def __init__(
        self,
        guard: _Guard,
        begin: Callable[[], AbstractContextManager[T]],
        plain: Callable[[], AbstractContextManager[T]],
    ) -> None:
        self._guard = guard
        self._begin, self._plain = begin, plain
        self._begun: AbstractContextManager[T] | None = None

    def __enter__(self) -> T:
        with self._guard:
            moment = self._begin()
            given = moment.__enter__()
            self._begun = moment
            return given
        return self._plain().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            if self._begun:
                self._begun.__exit__(kind, error, trace)
