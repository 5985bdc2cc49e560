"""Each alert fires for its own fault and is quiet for the others, on what real services showed under each."""

import json
import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from alerts.recording import FOLDER, INTERVAL, NAME, RULES, Recording, promtool, read

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
LATE: Final = {"ClinicChargesLateFast", "ClinicChargesLateSlow"}
FIRES: Final[dict[str, set[str]]] = {
    "calm": set(),
    "broker-away": {"ClinicEventsNotPublished", "ClinicTransportSilent"},
    "database-away": {"ClinicStoreSilent", "ClinicRequestsFail"},
    "charges-locked": {"ClinicConsumerLags", *LATE},
    "financial-down": {"ClinicServiceDown", "ClinicServiceRestarted", *LATE},
    "few-are-late": {"ClinicChargesLateSlow"},
    "poison-event": {"ClinicDeadLettersWait"},
    "log-unwritable": {"ClinicLogLost"},
    "clock-off": {"ClinicClockOff"},
    "disk-full": {"ClinicDiskFills"},
    "charge-lost": {"ClinicAuditFinds"},
}
"""The alerts of each fault: these fire, and no other."""
MAY_FIRE: Final[dict[str, set[str]]] = {"broker-away": LATE, "database-away": LATE}
"""What was under way is charged late, if it is charged before the recording ends."""
NOT_RECORDED: Final = {"ClinicAuditSilent", "ClinicEventsDoNotArrive"}
"""What takes a quarter of an hour to be seen is not recorded: the series are written by hand."""
ROW: Final = re.compile(
    r"^\| ([\w-]+) \| `([^`]+)` \| `(\w+)` \| (\d+) s \| (later|(\d+) s) \| (.+) \|$", re.MULTILINE
)
"""Of the table in the runbook: fault, metric, alert, when it fires, when it is over, what ends it."""
TIMES: Final = "{0} by (alertname) ({0}_over_time(timestamp(ALERTS{{{1}}})[2h:5s]))"
FIRING: Final = 'group by (alertname) (max_over_time(ALERTS{{alertstate="firing",{}}}[2h]))'


def rules() -> dict[str, str]:
    """Each alert, with its text."""
    parts = re.split(r"^ +- (alert|record): ", RULES.read_text(), flags=re.MULTILINE)[1:]
    return {text.split()[0]: text for kind, text in pairwise(parts) if kind == "alert"}


def expected(at: int, matcher: str, names: set[str]) -> dict[str, Any]:
    """At that second, these of the alerts that match have fired."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]
    return {"expr": FIRING.format(matcher), "eval_time": f"{at}s", "exp_samples": samples}


def timed(
    recording: Recording, fires: set[str], rows: dict[str, tuple[int, int | None]]
) -> list[dict[str, Any]]:
    """These alerts fire, and are over, when the table says so."""
    of_these = f'alertstate="firing",alertname=~"{"|".join(sorted(fires))}"'
    first, last = (TIMES.format(which, of_these) for which in ("min", "max"))
    over = f"clamp_min(({last} < {recording.seconds}) + {INTERVAL} - {recording.ended}, 0)"
    queries = {f"{first} - {recording.began}": 0, over: 1}
    return [
        {
            "expr": query,
            "eval_time": f"{recording.seconds}s",
            "exp_samples": [
                {"labels": f'{{alertname="{alert}"}}', "value": times[which]}
                for alert, times in rows.items()
                if times[which] is not None
            ],
        }
        for query, which in queries.items()
    ]


def a_test(fault: str) -> dict[str, Any]:
    recording, fires = read(fault), FIRES[fault]
    rows = {
        alert: (int(after), int(over) if over else None)
        for its_fault, _, alert, after, _, over, _ in ROW.findall(RUNBOOK)
        if its_fault == fault
    }
    known = "|".join(sorted(fires | MAY_FIRE.get(fault, set())))
    return {
        "name": fault,
        "interval": f"{INTERVAL}s",
        "input_series": promtool(fault),
        "promql_expr_test": [
            expected(recording.began, "", set()),
            expected(recording.seconds, f'alertname=~"{"|".join(sorted(fires))}"', fires),
            expected(recording.seconds, f'alertname!~"{known}"', set()),
            *timed(recording, fires, rows),
        ],
    }


AUDIT: Final = {
    "name": "audit",
    "interval": "60s",
    "input_series": [
        {"series": "clinic_audit_last_success_timestamp_seconds", "values": "0+60x20 1200x20 _x30"},
    ],
    "promql_expr_test": [
        expected(3000, "", set()),
        expected(3600, "", {"ClinicAuditSilent"}),
    ],
}


def arrivals(name: str, published: str, received: str, up: str, fires: set[str]) -> dict[str, Any]:
    """Half an hour, by hand: batches that are published and received, each minute; whether one receives."""
    series = {
        "clinic_publish_batch_size_count": published,
        "clinic_consumer_batch_size_count": received,
        'up{job="clinic",service="financial"}': up,
    }
    return {
        "name": name,
        "interval": "60s",
        "input_series": [{"series": series_, "values": values} for series_, values in series.items()],
        "promql_expr_test": [expected(1800, 'alertname="ClinicEventsDoNotArrive"', fires)],
    }


ARRIVALS: Final = (
    arrivals("another topic", "0+3x30", "0x30", "1x30", {"ClinicEventsDoNotArrive"}),
    arrivals("all arrive", "0+3x30", "0+1x30", "1x30", set()),
    arrivals("nothing is published", "7x30", "0x30", "1x30", set()),
    arrivals("a message now and then", "0x9 1x10 2x10", "0x9 1x10 2x10", "1x30", set()),
    arrivals("it is down, which has its own alert", "0+3x30", "5x3 _x27", "1x3 0x27", set()),
)


def require_promtool() -> str:
    """Skip the test without it; in CI the test fails: there, nothing may be left out."""
    if found := shutil.which("promtool"):
        return found
    if os.environ.get("CI") == "true":
        pytest.fail("needs promtool (Debian: apt-get install prometheus)", pytrace=False)
    pytest.skip("needs promtool (Debian: apt-get install prometheus)")


def test_each_alert_fires_for_its_own_fault_and_is_quiet_for_the_others(tmp_path: Path) -> None:
    command = require_promtool()
    tests = [*(a_test(fault) for fault in FIRES), AUDIT, *ARRIVALS]
    file = tmp_path / "tests.yaml"  # JSON is YAML, too
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "5s", "tests": tests}))
    done = subprocess.run((command, "test", "rules", str(file)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_and_every_fault_was_recorded() -> None:
    assert set.union(*FIRES.values(), NOT_RECORDED) == rules().keys()
    assert {file.stem for file in FOLDER.glob("*.txt")} == FIRES.keys()


def page(alert: str) -> str:
    """What the runbook says of it."""
    (anchor,) = re.findall(r"runbook_url: docs/runbook\.md#([\w-]+)$", rules()[alert], re.MULTILINE)
    parts = re.split("^## ", RUNBOOK, flags=re.MULTILINE)
    return {part.partition("\n")[0].lower().replace(" ", "-"): part for part in parts}[anchor]


@pytest.mark.parametrize("alert", rules())
def test_every_alert_has_a_page_that_says_what_to_do(alert: str) -> None:
    for part in (f"`{alert}`", "**It means**", "**Look**", "**Do**", "**Over when**"):
        assert part in page(alert)


def test_the_table_has_every_fault_and_what_its_alert_asks_for_and_what_ends_it() -> None:
    rows = ROW.findall(RUNBOOK)
    assert {(row[0], row[2]) for row in rows} == {
        (fault, alert) for fault, its in FIRES.items() for alert in its
    }
    for _, metric, alert, *_, ending in rows:
        name = metric.partition("{")[0]
        asked = rules()[alert].replace("clinic:late_charges", "clinic_time_to_charge_seconds")
        assert name in asked.replace("clinic:clock_offset_seconds", "clinic_time_seconds"), alert
        _, _, does = page(alert).partition("**Do**")
        assert ending in " ".join(does.split()), alert


def test_what_the_rules_and_the_runbook_name_is_shown_by_the_services() -> None:
    known = (ROOT / "docs" / "metrics.md").read_text()
    named = {re.sub("_(bucket|count|sum)$", "", name) for name in NAME.findall(RULES.read_text() + RUNBOOK)}
    families = {name for name in named if name.startswith("clinic_")}
    assert [name for name in sorted(families) if f"| `{name}` |" not in known] == []
