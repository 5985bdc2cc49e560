"""The standing audit: its rounds in a time that a test moves, and what it shows over HTTP."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace
from support.apps import Clinic, settings, wrong_fields
from support.standing import Standing, charge, finished

from clinic.domain.errors import Unavailable
from clinic.domain.money import Money
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.watcher import standing
from clinic.testing.builders import running

LONG_AGO = timedelta(days=30)


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(settings("memory", tmp_path))


async def test_a_round_finds_what_is_missing_orphaned_and_wrong(clinic: Clinic) -> None:
    right, missing, wrong = [await finished(clinic) for _ in range(3)]
    orphaned = replace(right, id=UUID(int=right.id.int + 1))
    await charge(clinic, right)
    await charge(clinic, wrong, total=Money("0.10"))
    await charge(clinic, orphaned)
    watcher = Standing(clinic)

    async with running(watcher.audit.run()):
        assert await watcher.turns.ended() == 300

    assert watcher.found == {missing.id: "missing", wrong.id: "wrong", orphaned.id: "orphaned"}
    for kind in ("missing", "orphaned", "wrong"):
        assert watcher.value(f"clinic_audit_{kind}") == 1
    assert watcher.value("clinic_audit_checked_total") == 4
    assert watcher.value("clinic_audit_last_success_timestamp_seconds") == clinic.clock().timestamp()
    assert len(watcher.telemetry.named("audit finds")) == 3
    assert watcher.telemetry.named("audited")[0]["compared"] == 4


async def test_what_is_mended_is_found_no_more(clinic: Clinic) -> None:
    missing = await finished(clinic)
    watcher = Standing(clinic)
    async with running(watcher.audit.run()):
        await watcher.turns.ended()
        await charge(clinic, missing)
        await watcher.turns.another()
    assert watcher.found == {}
    assert watcher.value("clinic_audit_missing") == 0


async def test_a_round_looks_at_the_last_day_and_once_a_day_at_all(clinic: Clinic) -> None:
    new, old = await finished(clinic), await finished(clinic, LONG_AGO)
    watcher = Standing(clinic)
    async with running(watcher.audit.run()):
        await watcher.turns.ended()
        assert set(watcher.found) == {new.id}
        await watcher.turns.another()
        assert set(watcher.found) == {new.id, old.id}
        older = await finished(clinic, LONG_AGO)  # open for long, and finished now
        await watcher.turns.another()
        assert set(watcher.found) == {new.id, old.id}
        clinic.clock.move(hours=24)
        await watcher.turns.another()
    assert set(watcher.found) == {new.id, old.id, older.id}
    scopes = [each["scope"] for each in watcher.telemetry.named("audited")]
    assert scopes == ["day", "all", "day", "all"]


async def test_a_finding_of_the_daily_turn_is_looked_at_again_in_each_round(clinic: Clinic) -> None:
    old = await finished(clinic, LONG_AGO)
    watcher = Standing(clinic)
    async with running(watcher.audit.run()):
        await watcher.turns.ended()
        await watcher.turns.another()
        await watcher.turns.another()
        assert set(watcher.found) == {old.id}
        await charge(clinic, old)
        await watcher.turns.another()
    assert watcher.found == {}


async def test_an_old_finding_that_was_republished_in_vain_is_not_forgotten(clinic: Clinic) -> None:
    old = await finished(clinic, LONG_AGO)
    watcher = Standing(clinic, repairs=1, grace=400, wait=0.05)
    async with running(watcher.audit.run()):
        await watcher.turns.ended()
        await watcher.turns.another()
        (found,) = watcher.audit.findings.page(10, None)
        assert found.repair
        assert found.repair.outcome == "republished"
        await watcher.turns.another()
        assert watcher.found == {}, "it is in flight"
        await watcher.turns.another()
    assert watcher.found == {old.id: "missing"}


async def test_nothing_is_repaired_unless_it_is_told_to(clinic: Clinic) -> None:
    await finished(clinic)
    watcher = Standing(clinic)
    async with running(watcher.audit.run()):
        await watcher.turns.ended()
    assert await clinic.appointment.outbox().count(10) == 0
    assert watcher.audit.problem is None


async def test_what_is_missing_is_repaired_where_it_is_told_to(clinic: Clinic) -> None:
    made = [await finished(clinic) for _ in range(2)]
    watcher = Standing(clinic, repairs=2)
    async with clinic.running(), running(watcher.audit.run()):
        await watcher.turns.ended()
        assert watcher.found == {}
        assert {str((await clinic.financial.charges().get(each.id)).total) for each in made} == {"400.00"}
    assert watcher.value("clinic_audit_repairs_total", outcome="charged") == 2
    assert len(watcher.telemetry.named("audit repairs")) == 2


async def test_a_round_repairs_so_many_and_beyond_that_asks_for_a_person(clinic: Clinic) -> None:
    made = [await finished(clinic) for _ in range(5)]
    watcher = Standing(clinic, repairs=2)
    async with clinic.running(), watcher.over_http() as http:
        await watcher.turns.ended()
        assert len(watcher.found) == 3
        assert watcher.value("clinic_audit_braked") == 1
        reason = (
            "5 charges are missing, more than the 2 that a round repairs: look, then `clinic audit --repair`"
        )
        assert (await http.get("/health/ready")).json() == {"status": "degraded", "checks": {"audit": reason}}
        assert watcher.telemetry.named("audit needs a person") == [{"reason": reason}]

        await watcher.turns.another()
        assert len(watcher.found) == 3, "the brake stays on"
        person = next(each for each in made if each.id in watcher.found)
        await charge(clinic, person)

        await watcher.turns.another()  # finds no more than it may repair, and lets the brake go
        assert (len(watcher.found), watcher.value("clinic_audit_braked")) == (2, 0)
        await watcher.turns.another()
        assert watcher.found == {}
        assert (await http.get("/health/ready")).json() == {"status": "ready", "checks": {"audit": "ok"}}


async def test_two_at_once_harm_nothing(clinic: Clinic) -> None:
    made = [await finished(clinic) for _ in range(20)]
    one, other = Standing(clinic, repairs=100), Standing(clinic, repairs=100)
    async with clinic.running(), running(one.audit.run()), running(other.audit.run()):
        await asyncio.gather(one.turns.ended(), other.turns.ended())
        assert (one.found, other.found) == ({}, {})
        charges = await clinic.financial.charges().by_appointment(100)
    assert {each.appointment_id for each in charges} == {each.id for each in made}
    assert len(charges) == 20


async def test_a_round_that_cannot_look_is_repeated_and_forgets_nothing(clinic: Clinic) -> None:
    missing = await finished(clinic)
    watcher = Standing(clinic)
    async with watcher.over_http() as http:
        await watcher.turns.ended()
        watcher.failure = Unavailable("the store is away")
        pauses = [await watcher.turns.another() for _ in range(10)]
        assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
        assert set(watcher.found) == {missing.id}
        assert watcher.value("clinic_audit_failures_total") == 10
        assert watcher.telemetry.named("audit waits")[-1] == {"reason": "the store is away"}
        assert (await http.get("/health/ready")).json() == {
            "status": "degraded", "checks": {"audit": "the store is away"}
        }  # fmt: skip
        await watcher.turns.another()
        answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unready")
        assert (
            "no round has ended well since 2020-12-01 13:00:00: the store" in answer.json()["checks"]["audit"]
        )

        watcher.failure = None
        assert await watcher.turns.another() == 300
        assert (await http.get("/health/ready")).json()["status"] == "ready"


async def test_before_its_first_round_it_is_unready(clinic: Clinic) -> None:
    watcher = Standing(clinic)
    watcher.failure = Unavailable("there is no file yet")
    async with watcher.over_http() as http:
        await watcher.turns.ended()
        answer = await http.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"audit": "no round has ended well yet: there is no file yet"}
        assert (await http.get("/health/live")).status_code == 200
        assert watcher.value("clinic_audit_last_success_timestamp_seconds") == 0


async def test_a_round_with_too_many_findings_ends_and_says_so(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "MAX_FINDINGS", 2)
    for _ in range(3):
        await finished(clinic)
    watcher = Standing(clinic)
    async with running(watcher.audit.run()):
        await watcher.turns.ended()
    assert watcher.audit.problem == "more than 2 findings"


async def test_findings_are_shown_a_page_at_a_time_the_newest_appointment_first(clinic: Clinic) -> None:
    made = [await finished(clinic) for _ in range(3)]
    newest = sorted((each.id for each in made), reverse=True)
    watcher = Standing(clinic)
    async with watcher.over_http() as http:
        await watcher.turns.ended()
        first = (await http.get("/findings/?limit=2")).json()
        rest = (await http.get(f"/findings/?limit=2&after={first['next']}")).json()
        assert [UUID(each["appointment_id"]) for each in first["items"] + rest["items"]] == newest
        assert rest["next"] is None
        assert first["items"][0] == {
            "appointment_id": str(newest[0]),
            "kind": "missing",
            "expected": 400.0,
            "found": None,
            "remedy": "republish",
            "explanation": "finished 2020-12-01 11:00:00, and its event was never saved",
            "since": "2020-12-01 13:00:00",
            "repair": None,
        }
        assert set(wrong_fields(await http.get("/findings/?limit=0&after=x"))) == {"limit"}
        assert set(wrong_fields(await http.get("/findings/?after=x"))) == {"after"}
        assert "/findings" in (await http.get("/openapi.json")).json()["paths"]
        assert "clinic_audit_missing 3.0" in (await http.get("/metrics")).text


@pytest.mark.parametrize(
    "words", [["--every", "soon"], ["--every", "0m"], ["--every", "5"], ["--every", "5m", "--most", "-1"]]
)
def test_words_that_make_no_sense_end_with_two(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", *words])
    assert ended.value.code == 2


def test_it_needs_a_store_that_it_can_read_and_writes_no_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["audit", "--every", "5m", "--json"]) == 1
    assert "leave --json out" in capsys.readouterr().err
    monkeypatch.setenv("CLINIC_STORE", "memory")
    assert cli.main(["audit", "--every", "5m"]) == 1
    assert "CLINIC_STORE=memory" in capsys.readouterr().err
