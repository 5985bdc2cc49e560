"""A fuzz of both services: real processes on SQLite, a fuzzer for each, and what both left behind."""

import json
import re
import sys
from pathlib import Path

from msgspec import Struct
from support.processes import PROGRAM, Pair, Process, Service

from clinic.entrypoints.containers import FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.testing.builders import a_letter, opened

HOOKS = Path(__file__).with_name("hooks.py")
TOKEN = "0123456789abcdef"  # noqa: S105 — of no other service than these tests'
GENERATED = re.compile(r"([\d,]+) generated")
PASSES = 0


class Fuzzed(Struct, frozen=True):
    """How many requests were made of a document, and what is wrong with their answers: nothing if empty."""

    service: str
    requests: int
    report: str
    is_good: bool


async def fuzz(pair: Pair, examples: int, seed: int, within: float) -> list[Fuzzed]:
    """Some 20 requests for each of the examples, from both documents at once.

    `pair` has not been started; it is running afterwards.
    """
    await _add_letters(pair.data)
    await pair.started()
    fuzzers = [_fuzzer(service, examples, seed) for service in pair.services]
    try:
        for fuzzer in fuzzers:
            fuzzer.start()
        codes = [await fuzzer.ended(within=within) for fuzzer in fuzzers]
    finally:
        for fuzzer in fuzzers:
            fuzzer.clean_up()
    return [
        Fuzzed(service.name, _requests(fuzzer.printed), fuzzer.printed + fuzzer.complained, code == PASSES)
        for service, fuzzer, code in zip(pair.services, fuzzers, codes, strict=True)
    ]


async def journey(pair: Pair, within: float) -> dict[str, int]:
    """How often what was answered, from starts to charges, on a running pair: see `fuzz/journey.py`."""
    command = (sys.executable, "-m", "fuzz.journey", *(service.url for service in pair.services))
    going = Process("journey", command, {"PYTHONPATH": str(HOOKS.parents[1])}, pair.folder)
    going.start()
    try:
        code = await going.ended(within=within)
    finally:
        going.clean_up()
    assert code == PASSES, going.printed + going.complained
    seen: dict[str, int] = json.loads(going.printed)
    return seen


async def audit(pair: Pair) -> Process:
    """The audit of what the requests left behind: every finish is charged, whatever else they did."""
    command = Process("audit", (*PROGRAM, "audit", "--grace", "0"), pair.environment, pair.folder)
    command.start()
    await command.ended(within=60)
    return command


def a_pair(folder: Path) -> Pair:
    """Both services, with all their paths."""
    return Pair(folder, {"CLINIC_OPERATOR_TOKEN": TOKEN})


async def _add_letters(data: Path) -> None:
    container = FinancialContainer(settings=Settings(data_dir=data))
    async with opened(container.store().resource):
        await container.dead_letters().add([a_letter(position=f"topic/0/{number}") for number in range(20)])


def _fuzzer(service: Service, examples: int, seed: int) -> Process:
    options = {
        "--url": service.url,
        "--header": f"Authorization: Bearer {TOKEN}",
        "--checks": "all",
        "--max-examples": str(examples),
        "--seed": str(seed),
        "--generation-database": "none",
        "--suppress-health-check": "all",
        "--warnings": "off",
    }
    words = [word for option in options.items() for word in option]
    fuzzer = (sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{service.url}/openapi.json")
    return Process(
        f"fuzz-{service.name}",
        (*fuzzer, *words, "--continue-on-failure"),
        {"SCHEMATHESIS_HOOKS": str(HOOKS), "COLUMNS": "110"},
        service.folder,
    )


def _requests(report: str) -> int:
    return sum(int(each.replace(",", "")) for each in GENERATED.findall(report))
