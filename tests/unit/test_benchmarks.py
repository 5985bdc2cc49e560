"""The pure parts of `make bench`: what it says of numbers, it says of these too."""

import asyncio
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import client, page, procfs, wrk
from benchmarks.client import FellBehindError, open_loop, schedule
from benchmarks.figures import Figure, Measurement, figure, of, percentile, ratio
from benchmarks.procfs import Snapshot, Stat, descendants, parse_machine, parse_memory, parse_stat, spent
from benchmarks.table import Row, aligned, markdown, table

RATE = Row("requests/s", "start", ["rate"])
CPU = Row("CPU", "start", ["cpu.service", "cpu.mongod"], 0, " + ")


def measured(
    system: str, number: int, values: Mapping[str, float], *, others: float = 0.0, note: str = ""
) -> Measurement:
    return Measurement(
        stack="real",
        system=system,
        scenario="start",
        round=number,
        values=values,
        others=others,
        note=note,
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 5.0), (0.99, 10.0), (0.9, 9.0), (0.0, 1.0), (1.0, 10.0), (0.91, 10.0)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(10, 0, -1)], share) == expected


def test_a_figure_is_the_median_with_the_lowest_and_highest_round() -> None:
    assert figure([3.0, 1.0, 8.0]) == Figure(3.0, 1.0, 8.0, 3)
    assert figure([]) is None


def test_a_ratio_pairs_the_rounds_that_were_undisturbed_for_both() -> None:
    found = [
        measured("ours", 0, {"rate": 100.0}),
        measured("theirs", 0, {"rate": 50.0}),
        measured("ours", 1, {"rate": 900.0}, others=0.5),
        measured("theirs", 1, {"rate": 1.0}),
    ]
    assert ratio(of(found, "ours", "start", "rate"), of(found, "theirs", "start", "rate")) == Figure(
        2, 2, 2, 1
    )


def test_no_ratio_is_printed_of_disturbed_rounds_and_their_figure_is_marked() -> None:
    found = [
        measured("ours", 0, {"rate": 1100.0}),
        measured("theirs", 0, {"rate": 50.0}, others=0.5),
    ]
    assert table(found, [RATE], ["ours", "theirs"], [("ours", "theirs")]) == [
        ["", "ours", "theirs", "ours ÷ theirs"],
        ["requests/s", "1,100", "50~", "-"],
    ]


def test_figures_of_undisturbed_rounds_stand_with_their_spread() -> None:
    rates = {0: (100.0, 0.0), 1: (120.0, 0.0), 2: (400.0, 9.0), 3: (90.0, 0.0)}
    found = [
        measured("ours", number, {"rate": rate}, others=others) for number, (rate, others) in rates.items()
    ]
    assert table(found, [RATE], ["ours"], [])[1] == ["requests/s", "100 (90 to 120)"]


def test_cpu_times_stand_apart_and_their_sums_are_compared() -> None:
    found = [
        measured("ours", 0, {"cpu.service": 400.0, "cpu.mongod": 100.0}),
        measured("theirs", 0, {"cpu.service": 600.0, "cpu.mongod": 400.0}),
    ]
    shown = table(found, [CPU], ["ours", "theirs"], [("ours", "theirs")])
    assert shown[1] == ["CPU", "400 + 100", "600 + 400", "0.50"]


def test_a_system_that_falls_behind_says_so_and_has_no_ratio() -> None:
    found = [measured("ours", 0, {"rate": 1.0}), measured("theirs", 0, {}, note="falls behind")]
    shown = table(found, [RATE], ["ours", "theirs"], [("ours", "theirs")])
    assert shown[1] == ["requests/s", "1", "falls behind", "-"]


def test_a_row_that_nobody_was_measured_for_is_left_out() -> None:
    assert table([measured("ours", 0, {})], [RATE], ["ours"], []) == [["", "ours"]]


def test_a_table_is_written_for_a_page_and_for_a_terminal() -> None:
    lines = [["", "clinic"], ["requests/s", "1,100"]]
    assert markdown(lines) == "|  | clinic |\n| --- | ---: |\n| requests/s | 1,100 |\n"
    assert aligned(lines) == "            clinic\nrequests/s   1,100"


def test_a_process_is_read_whatever_its_name_is() -> None:
    text = "7 (a) b (c) S 3 7 7 0 -1 4 1 2 3 4 250 50 9 9 20 0 1 0 100 4096 12"
    assert parse_stat(text) == Stat(3, 300 / procfs.TICKS)


def test_the_machine_is_busy_with_all_but_idle_and_waiting() -> None:
    assert parse_machine("cpu  1 2 4 1000 1000 8 16 32 500 500\ncpu0 …") == 63 / procfs.TICKS


def test_memory_is_what_is_resident() -> None:
    assert parse_memory("VmPeak:\t 9 kB\nVmRSS:\t 64 kB\n") == 65536
    assert parse_memory("State:\tZ (zombie)\n") == 0


def test_a_process_counts_with_all_below_it() -> None:
    stats = {1: Stat(0, 9), 2: Stat(1, 1), 3: Stat(2, 1), 4: Stat(3, 1), 5: Stat(1, 9)}
    assert descendants(2, stats) == {2, 3, 4}
    assert descendants(6, stats) == set()


def test_what_is_neither_the_system_nor_the_benchmark_is_others() -> None:
    before = Snapshot(at=10, cpu={"service": 1.0}, own=2.0, machine=100.0)
    after = Snapshot(at=14, cpu={"service": 3.0, "new": 0.5}, own=3.0, machine=105.5)
    used = spent(before, after)
    assert (used.seconds, used.cpu, used.others) == (4, {"service": 2.0, "new": 0.5}, 0.5)


def test_ones_own_process_is_found_in_proc() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("Linux only")
    used = spent(procfs.snapshot({"self": os.getpid()}), procfs.snapshot({"self": os.getpid()}))
    assert used.cpu["self"] >= 0


def test_a_schedule_is_a_steady_rate() -> None:
    due = list(schedule(100.0, 50, 4))
    assert due[0] == 100.0
    assert [round(later - earlier, 9) for earlier, later in pairwise(due)] == [0.02, 0.02, 0.02]


async def test_a_request_behind_a_slow_one_keeps_its_own_moment() -> None:
    released = asyncio.Event()

    async def finish(id_: str) -> None:
        if id_ == "slow":
            await released.wait()
        released.set()

    found = {answered.id: answered for answered in await open_loop(["slow", "quick"], 100, finish)}
    assert found["quick"].due - found["slow"].due == pytest.approx(0.01)
    assert found["slow"].answered >= found["quick"].sent


async def test_a_system_that_answers_nothing_has_fallen_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_UNANSWERED", 5)
    with pytest.raises(FellBehindError):
        await open_loop([str(number) for number in range(50)], 10_000, lambda _: asyncio.Event().wait())


def test_wrk_is_read_by_the_line_of_its_script() -> None:
    printed = 'Running …\n\n{"requests": 30, "seconds": 3.0, "failed": 0, "p50": 1.5, "p99": 9.0}\n'
    assert wrk.read(printed).requests == 30
    with pytest.raises(RuntimeError, match="1 of 30 requests failed"):
        wrk.read(printed.replace('"failed": 0', '"failed": 1'))


def test_the_page_names_its_machine_and_how_much_was_disturbed(tmp_path: Path) -> None:
    run = page.Run(
        at="1 December 2020",
        commit="abc",
        machine={"machine": "two cores"},
        rounds=1,
        seconds=8,
        rates=[50],
        measurements=[measured("clinic", 0, {"rate": 1.0}), measured("B", 0, {"rate": 2.0}, others=1.0)],
    )
    text = page.write(run, tmp_path).read_text()
    assert "two cores" in text
    assert "1 of 2 measurements" in text
    assert "| `POST /`, 64 connections: requests/s | 1 | 2~ | - | - |" in text
