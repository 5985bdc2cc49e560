"""The picture of a trace in docs/tracing.md, drawn from the one that is kept as JSON."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from support.collector import Span

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "unit" / "files" / "trace.json"
PAGE = ROOT / "docs" / "tracing.md"
WIDTH = 30


def kept() -> list[Span]:
    return msgspec.json.decode(KEPT.read_bytes(), type=list[Span])


def keep(spans: Sequence[Span]) -> None:
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(spans)) + b"\n")


def drawn(spans: Sequence[Span], trace_id: str) -> str:
    """A line a span: its tree, its service, when it began and how long it took. `⇠` marks a linked trace."""
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    lines = [f"trace {trace_id}"]
    for depth, span in _tree(spans):
        mark = "  " * depth + ("" if span.trace_id == trace_id else "⇠ ")
        began, ended = ((each - first) * (WIDTH - 1) // (last - first) for each in (span.start, span.end))
        bar = " " * began + "█" * (ended - began + 1)
        took = f"{(span.start - first) / 1e6:9.1f} ms  {(span.end - span.start) / 1e6:7.1f} ms"
        service = f"{span.service.removeprefix('clinic-')} {span.instance}"
        lines.append(f"{mark + span.name:<34} {service:<20} {bar:<{WIDTH}} {took}")
    return "\n".join(lines)


def _tree(spans: Sequence[Span]) -> Iterator[tuple[int, Span]]:
    """Each span beneath its parent, or beneath what it links to, in the order of time."""
    depths: dict[str, int] = {}
    for span in spans:
        above = [depths[each] for each in (span.parent_id, *(its for _, its in span.links)) if each in depths]
        depths[span.span_id] = above[0] + 1 if above else 0
        yield depths[span.span_id], span
