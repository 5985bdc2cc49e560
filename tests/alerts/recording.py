"""What a pair of services showed over time: scraped, kept as text, and read as promtool writes series."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "recorded"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
INTERVAL = 5
"""Seconds between two scrapes."""
SCRAPE_TIMEOUT = 4.0
STALE = float("-inf")
"""Stands where a series that was there has ended."""
MOMENTS = (
    "clinic_audit_last_success_timestamp_seconds",
    "clinic_time_seconds",
    "process_start_time_seconds",
)
"""Kept as seconds since the recording began: promtool's time begins at 0."""
NAME = re.compile(r"\b(?:clinic_\w+|process_\w+|up)\b")

Values = Sequence[float | None]


class Recording(Struct):
    """Series by name and labels, a value a scrape, None where there was none; the fault's seconds."""

    began: int
    ended: int
    series: dict[str, list[float | None]]

    @property
    def seconds(self) -> int:
        return INTERVAL * (max(map(len, self.series.values())) - 1)


class Scraper:
    """Scrapes the services of a pair, as Prometheus would."""

    def __init__(self, targets: Mapping[str, str], zero: float) -> None:
        self._targets, self._zero = targets, zero
        self.series: dict[str, list[float | None]] = {}

    async def scrape(self, http: httpx.AsyncClient, number: int) -> None:
        """The scrape of that number; those that were left out before are missing."""
        shown = await asyncio.gather(*(self._shown(http, *target) for target in self._targets.items()))
        found = {series: value for one in shown for series, value in one.items()}
        for series in found:
            self.series.setdefault(series, [])
        for series, values in self.series.items():
            is_over = series not in found and values and values[-1] not in {None, STALE}
            values.extend([None] * (number - len(values)))
            values.append(STALE if is_over else found.get(series))

    async def _shown(self, http: httpx.AsyncClient, service: str, url: str) -> dict[str, float]:
        labels = {"instance": f"{service}:80", "job": "clinic", "service": service}
        try:
            page = (await http.get(f"{url}/metrics", timeout=SCRAPE_TIMEOUT)).raise_for_status().text
        except httpx.HTTPError:
            return {_named("up", labels): 0.0}
        return {_named("up", labels): 1.0} | {
            _named(sample.name, labels | sample.labels): sample.value
            - (self._zero if sample.name in MOMENTS else 0)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }


def _named(name: str, labels: Mapping[str, str]) -> str:
    given = ",".join(f'{label}="{labels[label]}"' for label in sorted(labels))
    return f"{name}{{{given}}}"


def needed() -> set[str]:
    """The names in the rules."""
    return set(NAME.findall(RULES.read_text()))


def write(fault: str, recording: Recording, *, whole: bool) -> None:
    """Keep it; of what the rules do not name, only the audit's, or all where it is to be `whole`."""
    names = needed()
    kept = {
        series: values
        for series, values in sorted(recording.series.items())
        if not series.partition("{")[0].endswith("_created")
        and (whole or series.partition("{")[0] in names or series.startswith("clinic_audit_"))
        and ("time_to_charge_seconds_bucket" not in series or whole or 'le="10.0"' in series)
    }
    lines = [f"# the fault from {recording.began} s to {recording.ended} s"]
    lines += [f"{series} {' '.join(written(values))}" for series, values in kept.items()]
    (FOLDER / f"{fault}.txt").write_text("\n".join(lines) + "\n")


def read(fault: str) -> Recording:
    """What was recorded under that fault."""
    first, *lines = (FOLDER / f"{fault}.txt").read_text().splitlines()
    began, ended = map(int, re.findall(r"\d+", first))
    pairs = (line.rpartition("} ") for line in lines)
    return Recording(began, ended, {f"{name}}}": list(values(text)) for name, _, text in pairs})


def promtool(fault: str) -> list[dict[str, str]]:
    """The series for `promtool test rules`."""
    _, *lines = (FOLDER / f"{fault}.txt").read_text().splitlines()
    pairs = (line.rpartition("} ") for line in lines)
    return [{"series": f"{name}}}", "values": text} for name, _, text in pairs]


def written(values: Values) -> Iterator[str]:
    """promtool's notation: `3x2` is 3 3 3, `1+2x2` is 1 3 5, `_` is none, `stale` the series' end."""
    numbers = [value and round(value, 3) for value in values]
    at = 0
    while at < len(numbers):
        value, step, times = numbers[at], 0.0, 0
        if value is None or value == STALE:
            yield "_" if value is None else "stale"
            at += 1
            continue
        following = numbers[at + 1] if at + 1 < len(numbers) else None
        if following is not None and (following - value).is_integer() and value.is_integer():
            step = following - value
        while at + times + 1 < len(numbers) and numbers[at + times + 1] == value + step * (times + 1):
            times += 1
        sign = f"{step:+.0f}" if step else ""
        yield f"{_text(value)}{sign}x{times}" if times else _text(value)
        at += times + 1


def values(text: str) -> Iterator[float | None]:
    """What `written` wrote."""
    for part in text.split():
        if part in {"stale", "_"}:
            yield None
            continue
        found = re.fullmatch(r"(-?[\d.]+?(?:e[+-]?\d+)?)([+-]\d+)?(?:x(\d+))?", part)
        assert found, part
        first, step, times = float(found[1]), int(found[2] or 0), int(found[3] or 0)
        yield from (first + step * each for each in range(times + 1))


def _text(value: float) -> str:
    return str(int(value)) if value.is_integer() else str(value)
