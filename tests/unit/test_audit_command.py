"""`clinic audit`: what a person and a machine see, and the exit code that a scheduler goes by."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from support.folders import Folder, a_folder
from support.schemas import json_schema

from clinic.domain.events import event_id
from clinic.domain.money import Money
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.cli.audit import Found, Summary
from clinic.testing.builders import a_letter, an_appointment

SCHEMA = Path(__file__).parent / "schemas" / "audit.json"
ONE, TWO = (an_appointment(id=UUID(int=number)) for number in (1, 2))


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Folder]:
    with a_folder(tmp_path, monkeypatch, capsys) as folder:
        yield folder


def test_where_all_is_well_it_says_so_in_a_line(folder: Folder) -> None:
    folder.finish(ONE)
    folder.charge(ONE)
    assert folder.command("audit") == "1 compared: 0 missing, 0 orphaned, 0 wrong; 0 in flight\n"
    assert folder.json("audit") == [
        {
            "record": "summary",
            "compared": 1,
            "in_flight": 0,
            "missing": 0,
            "orphaned": 0,
            "wrong": 0,
            "charged": 0,
            "remaining": 0,
        }
    ]


def test_what_is_missing_is_shown_in_eighty_columns_and_ends_with_three(folder: Folder) -> None:
    folder.finish(ONE, position="clinic.appointments/5/123456789")
    printed = folder.command("audit", code=3)
    assert printed.splitlines()[0] == f"missing   {ONE.id}  due 400.00"
    assert "published" in printed
    assert "1 compared: 1 missing" in printed
    assert "`clinic audit --repair`" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80


def test_machines_get_a_line_for_each_finding_and_a_summary(folder: Folder) -> None:
    folder.finish(ONE)
    folder.charge(ONE, total=Money("0.10"))
    folder.charge(TWO)
    orphaned, wrong, summary = folder.json("audit", code=3)
    assert (orphaned["record"], orphaned["kind"], orphaned["appointment_id"]) == (
        "finding",
        "orphaned",
        str(TWO.id),
    )
    assert (wrong["kind"], str(wrong["expected"]), str(wrong["found"])) == ("wrong", "400.00", "0.10")
    assert wrong["explanation"] == "the charge says total 0.10 instead of 400.00"
    assert (wrong["remedy"], wrong["outcome"]) == ("a person", None)
    assert (summary["orphaned"], summary["wrong"], summary["remaining"]) == (1, 1, 2)


def test_a_repair_without_services_says_what_remains_and_the_next_finds_it_waiting(folder: Folder) -> None:
    folder.finish(ONE)
    finding, summary = folder.json("audit", "--repair", "--wait", "0.05", code=3)
    assert finding["outcome"] == "republished"
    assert "is the appointment service running?" in finding["outcome_explanation"]
    assert (summary["charged"], summary["remaining"]) == (0, 1)
    assert folder.json("audit", code=0)[-1]["in_flight"] == 1  # it was published just now
    printed = folder.command("audit", "--grace", "0", "--repair", code=3)
    assert "to be published" in printed
    assert "left alone: it is about to be published" in printed
    assert "0 charged now, 1 remaining" in printed


def test_a_repair_changes_no_charge_and_removes_none(folder: Folder) -> None:
    folder.finish(ONE)
    folder.charge(ONE, total=Money("0.10"))
    folder.charge(TWO)
    before = folder.run(lambda _, financial: financial.charges().by_appointment(10))
    assert "only a person can decide" in folder.command("audit", "--repair", code=3)
    assert folder.run(lambda _, financial: financial.charges().by_appointment(10)) == before


def test_a_dead_letter_is_named_with_its_command_and_foreign_text_is_escaped(
    folder: Folder,
) -> None:
    folder.finish(ONE)
    letter = a_letter(
        position="log/1", about=str(ONE.id), message_id=str(event_id(ONE.id)), reason="bad \x1b[2J [red]text"
    )
    folder.run(lambda _, financial: financial.dead_letters().add([letter]))
    printed = folder.command("audit", "--repair", code=3)
    assert "`clinic dead-letters replay log/1`" in " ".join(printed.split())
    assert "bad \\x1b[2J [red]text" in printed
    assert "\x1b" not in printed
    (found, _) = folder.json("audit", "--repair", code=3)
    assert (found["remedy"], found["outcome"]) == ("replay", "dead-lettered")


def test_the_grace_is_a_matter_of_choice(folder: Folder) -> None:
    folder.finish(ONE)
    assert folder.json("audit", "--grace", "999999999") == [
        {
            "record": "summary",
            "compared": 1,
            "in_flight": 1,
            "missing": 0,
            "orphaned": 0,
            "wrong": 0,
            "charged": 0,
            "remaining": 0,
        }
    ]


@pytest.mark.parametrize(
    "words", [["--grace", "-1"], ["--grace", "soon"], ["--wait", "nan"], ["--wait", "inf"], ["--mend"]]
)
def test_words_that_make_no_sense_end_with_two(folder: Folder, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        folder.command("audit", *words)
    assert ended.value.code == 2


def test_without_data_it_says_what_to_do(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLINIC_DATA_DIR", str(tmp_path / "elsewhere"))
    assert "CLINIC_DATA_DIR" in folder.command("audit", code=1)
    monkeypatch.setenv("CLINIC_STORE", "memory")
    assert "CLINIC_STORE=memory" in folder.command("audit", code=1)


def test_its_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["audit", "--help"])
    assert "Exit codes: 0" in capsys.readouterr().out


def test_the_shape_for_machines_is_as_it_was() -> None:
    assert json_schema(Found | Summary) == json.loads(SCHEMA.read_text())
