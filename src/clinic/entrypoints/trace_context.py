"""W3C Trace Context as text: what came with a request is kept with its event, and stands in the log."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Final

from msgspec import Struct

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
NAMES: Final = (PARENT, STATE)
"""Of HTTP headers, of CloudEvents' extensions for tracing, and of a message's plain headers."""

_parent = re.compile("(?!ff)[0-9a-f]{2}(-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
_state = re.compile("[ -~]{1,512}")


class TraceContext(Struct, frozen=True):
    """A place in a trace. `state` belongs to tracing systems, and may be empty."""

    parent: str
    state: str = ""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.parent[3:35]

    def named(self, prefix: str = "") -> tuple[tuple[str, str], ...]:
        """Names, each with that prefix, and values."""
        parent = (prefix + PARENT, self.parent)
        return (parent, (prefix + STATE, self.state)) if self.state else (parent,)


current: Final[ContextVar[TraceContext | None]] = ContextVar("current", default=None)
"""The request's own."""
carried: Final[ContextVar[Mapping[str, TraceContext] | None]] = ContextVar("carried", default=None)
"""Those of the messages in hand: by the position of each, and by the appointment that it is about."""


def parse(parent: str, state: str = "") -> TraceContext | None:
    """None where `parent` is not valid. A `state` that is not, or longer than 512 characters, is left out.

    Of a later version, what version 00 knows is kept, as the standard says (4.3).
    """
    found = _parent.fullmatch(parent)
    if found is None or (found[2] and parent.startswith("00")):
        return None
    return TraceContext(f"00{found[1]}", state if _state.fullmatch(state) else "")


def of_headers(headers: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    """The context in the headers of a request. One that comes twice is not valid."""
    found = [value for name, value in headers if name == b"traceparent"]
    if len(found) != 1:
        return None
    states = [value for name, value in headers if name == b"tracestate"]
    return parse(found[0].decode("latin-1"), b",".join(states).decode("latin-1"))


def of_attributes(attributes: Iterable[tuple[str, str]]) -> TraceContext | None:
    """The context among the attributes of an event, whoever wrote them."""
    found = {name: value for name, value in attributes if name in NAMES}
    return parse(found[PARENT], found.get(STATE, "")) if PARENT in found else None


def concerning(details: Mapping[str, object]) -> TraceContext | None:
    """The context that a line of the log belongs to: that of its message, or else of the request."""
    if known := carried.get():
        for name in ("position", "appointment_id"):
            if found := known.get(str(details.get(name))):
                return found
    return current.get()
