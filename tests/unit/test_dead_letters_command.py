"""`clinic dead-letters`: what a person and a machine see, and the exit code that a scheduler goes by."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from msgspec.structs import replace

from clinic.adapters import cloudevents
from clinic.adapters.sqlite.charges import SqliteCharges
from clinic.adapters.sqlite.dead_letters import SqliteDeadLetters
from clinic.adapters.sqlite.file import SqliteFile, scripts
from clinic.domain.events import to_message
from clinic.domain.financial.ports import ChargeFilter
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter
from clinic.domain.messaging.messages import Message
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.cli.dead_letters import LetterList
from clinic.entrypoints.dead_letter_schemas import DeadLetterDetails, OutcomeResponse
from clinic.testing.builders import TWO_O_CLOCK, a_history_entry, a_letter, an_event, keep, opened

SCHEMAS = Path(__file__).parent / "schemas"


def of_message(message: Message, position: str, **changes: Any) -> DeadLetter:
    value = message.data or b""
    carried = {
        "key": message.key.encode(),
        "headers": tuple(cloudevents.headers(message)),
        "value": value,
        "length": len(value),
    }
    return replace(
        a_letter(position=position, about=message.subject, type=message.type), **(carried | changes)
    )


GOOD = to_message(an_event())
MENDED = of_message(GOOD, "log/1", group="mended", attempts=3, last_seen=TWO_O_CLOCK)
BAD = of_message(GOOD, "log/2", group="bad", value=b"{", length=1, reason="data that cannot be read")
DONE = of_message(
    GOOD,
    "log/3",
    group="mended",
    state="discarded",
    history=(a_history_entry(event="discarded", by="bob", note="a test"),),
)


class Folder:
    """The data of a financial service; each call of the command is a process of its own, so to say."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path = path
        self._capsys = capsys
        self.run(lambda letters, _: keep(letters, MENDED, BAD, DONE))

    def run(self, work: Callable[[SqliteDeadLetters, SqliteCharges], Awaitable[Any]]) -> Any:
        async def opened_for_it() -> Any:
            file = SqliteFile(self._path / "financial.db", *scripts("financial"))
            async with opened(file):
                return await work(SqliteDeadLetters(file), SqliteCharges(file))

        return asyncio.run(opened_for_it())

    def command(self, *words: str, code: int = 0) -> str:
        """What it prints. It must end with this exit code."""
        self._capsys.readouterr()
        ended = cli.main(["dead-letters", *words])
        printed = self._capsys.readouterr()
        assert ended == code, printed
        return printed.out if code != 1 else printed.err

    def json(self, *words: str, code: int = 0) -> list[Any]:
        """The documents that it prints for a machine."""
        return [json.loads(line) for line in self.command(*words, "--json", code=code).splitlines()]

    def kept(self) -> list[DeadLetter]:
        async def whole(letters: SqliteDeadLetters, _: SqliteCharges) -> list[DeadLetter]:
            return [await letters.get(each.position) for each in await letters.page(DeadLetterFilter(), 100)]

        return list(self.run(whole))

    def totals(self) -> list[str]:
        return [
            str(charge.total) for charge in self.run(lambda _, charges: charges.page(ChargeFilter(), 100))
        ]


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Folder]:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "CLINIC_DATA_DIR": str(tmp_path / "data"),
        "LOGNAME": "carol",
        "COLUMNS": "80",
    }.items():
        monkeypatch.setenv(name, value)
    configured = structlog.get_config()
    yield Folder(tmp_path / "data", capsys)
    structlog.configure(**configured)


def test_the_list_shows_what_waits_and_the_groups_of_all_within_eighty_columns(folder: Folder) -> None:
    printed = folder.command("list")
    assert [line.split() for line in printed.splitlines()[:3]] == [
        ["Group", "Waiting", "Replayed", "Discarded", "Reason", "(one", "of", "them)"],
        ["bad", "1", "0", "0", "data", "that", "cannot", "be", "read"],
        ["mended", "1", "0", "1", "it", "cannot", "be", "read"],
    ]
    assert "log/1                      waiting    3 times   2020-12-01 14:00:00" in printed
    assert f"  about {GOOD.subject}, group mended" in printed
    assert "log/3" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 80


@pytest.mark.parametrize(
    ("words", "positions"),
    [
        ([], ["log/1", "log/2"]),
        (["--state", "discarded"], ["log/3"]),
        (["--state", "replayed"], []),
        (["--state", "all"], ["log/1", "log/2", "log/3"]),
        (["--state", "all", "--group", "mended"], ["log/1", "log/3"]),
        (["--about", GOOD.subject], ["log/1", "log/2"]),
        (["--about", "nobody"], []),
        (["--after", "log/1"], ["log/2"]),
        (["--groups"], []),
    ],
)
def test_the_list_can_be_narrowed(folder: Folder, words: list[str], positions: list[str]) -> None:
    (listed,) = folder.json("list", *words)
    assert [each["position"] for each in listed["items"]] == positions
    assert [each["group"] for each in listed["groups"]] == ["bad", "mended"]
    printed = folder.command("list", *words)
    assert [each for each in ("log/1", "log/2", "log/3") if each in printed] == positions
    if not positions and "--groups" not in words:
        assert "No dead letters to show." in printed


def test_the_list_goes_on_behind_its_limit(folder: Folder) -> None:
    (first,) = folder.json("list", "--limit", "1")
    assert "--after log/1" in folder.command("list", "--limit", "1")
    (second,) = folder.json("list", "--limit", "1", "--after", first["next"])
    assert [each["position"] for each in first["items"] + second["items"]] == ["log/1", "log/2"]
    assert second["next"] is None


def test_of_many_groups_the_largest_are_shown_and_the_others_counted(folder: Folder) -> None:
    many = [
        a_letter(position=f"log/many/{number:03}", group=f"g{number:03}", state="discarded")
        for number in range(150)
    ]
    folder.run(lambda letters, _: letters.add(many))
    (listed,) = folder.json("list", "--groups")
    assert (len(listed["groups"]), listed["more_groups"]) == (100, 52)
    assert [each["group"] for each in listed["groups"]][:2] == ["bad", "mended"]
    printed = folder.command("list", "--groups")
    assert "… and 52 more groups" in printed
    assert "g097" in printed
    assert "g098" not in printed


def test_one_is_shown_with_its_message_and_who_did_what(folder: Folder) -> None:
    printed = folder.command("show", "log/3")
    for part in (
        "log/3",
        "discarded",
        GOOD.subject,
        "it cannot be read",
        f"ce_type: {GOOD.type}",
        '"200.00"',
        "discarded by bob: a test",
    ):
        assert part in printed
    (shown,) = folder.json("show", "log/3")
    assert shown["value"] == {
        "encoding": "text",
        "content": (GOOD.data or b"").decode(),
        "length": DONE.length,
        "cut": False,
    }
    assert {
        "name": "ce_type",
        "value": {"encoding": "text", "content": GOOD.type, "length": len(GOOD.type), "cut": False},
    } in shown["headers"]
    assert shown["history"] == [
        {"event": "discarded", "by": "bob", "at": "2020-12-01 14:00:00", "note": "a test"}
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (b"", {"encoding": "text", "content": "", "length": 0, "cut": False}),
        (b"\x00\xff", {"encoding": "hex", "content": "00ff", "length": 2, "cut": False}),
        (b"x" * 5000, {"encoding": "text", "content": "x" * 4096, "length": 5000, "cut": True}),
        (
            b"x" + "ü".encode() * 4000,
            {"encoding": "text", "content": "x" + "ü" * 2047, "length": 8001, "cut": True},
        ),
        (b"\xff" * 5000, {"encoding": "hex", "content": "ff" * 4096, "length": 5000, "cut": True}),
    ],
    ids=["none", "empty", "binary", "large", "large, cut inside a character", "large and binary"],
)
def test_a_value_is_shown_as_text_or_else_in_hexadecimal_digits_and_cut(
    folder: Folder, value: bytes | None, shown: object
) -> None:
    folder.run(
        lambda letters, _: letters.add([a_letter(position="log/9", value=value, length=len(value or b""))])
    )
    assert folder.json("show", "log/9")[0]["value"] == shown
    assert len(folder.command("show", "log/9")) < 5000


def test_a_line_break_in_a_foreign_header_makes_no_line_of_its_own(folder: Folder) -> None:
    headers = (("odd", b"1\nstate  replayed"), ("o\ndd", b"2\r\n"))
    letter = a_letter(position="log/9", key=b"k\nstate  replayed", headers=headers)
    folder.run(lambda letters, _: letters.add([letter]))
    printed = folder.command("show", "log/9")
    assert r"odd: 1\nstate  replayed" in printed
    assert sum(line.strip().startswith("state") for line in printed.splitlines()) == 1


def test_a_cut_letter_says_so(folder: Folder) -> None:
    folder.run(lambda letters, _: letters.add([a_letter(position="log/9", cut=True)]))
    assert "key and headers were not kept completely" in folder.command("show", "log/9")
    assert folder.json("show", "log/9")[0]["cut"] is True


def test_of_very_many_headers_the_first_are_shown_and_the_others_counted(folder: Folder) -> None:
    headers = tuple((f"header-{number}", b"1") for number in range(105))
    folder.run(lambda letters, _: letters.add([a_letter(position="log/9", headers=headers)]))
    printed = folder.command("show", "log/9")
    assert "header-99: 1" in printed
    assert "header-100" not in printed
    assert "and 5 more" in printed


def test_foreign_text_is_never_obeyed_by_the_terminal(folder: Folder) -> None:
    evil = "\x1b]0;title\x07[bold]\r\n\u202e"
    headers = ((evil, evil.encode()),)
    foreign = a_letter(
        position="log/9",
        about=evil,
        type=evil,
        reason=evil,
        headers=headers,
        value=evil.encode(),
        key=evil.encode(),
    )
    folder.run(lambda letters, _: letters.add([foreign]))
    for printed in (
        folder.command("list"),
        folder.command("show", "log/9"),
        folder.command("replay", "log/9", "--by", evil, code=3),
    ):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(printed)
        assert "\\x1b]0;title" in printed
    assert "[bold]" in folder.command("show", "log/9")


def test_a_replay_reports_each_outcome_and_exits_with_3_if_one_failed_again(
    folder: Folder,
) -> None:
    printed = folder.command("replay", "--all", code=3).splitlines()
    assert printed[0] == f"log/1  {GOOD.subject}  charged 400.00"
    assert printed[1].startswith(
        f"log/2  {GOOD.subject}  failed again: clinic.appointment.finished.v1 with data that cannot be read"
    )
    assert printed[2:] == ["1 charged, 1 failed again."]
    assert folder.totals() == ["400.00"]
    assert [(each.state, [entry.by for entry in each.history]) for each in folder.kept()] == [
        ("replayed", ["carol"]),
        ("waiting", ["carol"]),
        ("discarded", ["bob"]),
    ]


def test_a_replay_of_one_or_a_group_is_json_line_by_line(folder: Folder) -> None:
    (one,) = folder.json("replay", "log/3", "--by", "dora")
    assert one == {
        "position": "log/3",
        "about": GOOD.subject,
        "outcome": "charged",
        "note": "400.00",
        "sentence": "charged 400.00",
    }
    assert [each["sentence"] for each in folder.json("replay", "--group", "mended")] == [
        "already charged 400.00"
    ]
    assert folder.json("replay", "--group", "mended") == []
    assert "no dead letter waits" in folder.command("replay", "--group", "mended").lower()
    assert [each.history[-1].by for each in folder.kept() if each.history] == ["carol", "dora"]


def test_a_dry_run_says_so_and_changes_nothing(folder: Folder) -> None:
    before = folder.kept()
    printed = folder.command("replay", "--all", "--dry-run", code=3)
    assert "dry run" in printed
    assert "charged 400.00" in printed
    assert "dry run" in folder.command("discard", "--all", "--reason", "a test", "--dry-run")
    assert (folder.kept(), folder.totals()) == (before, [])


def test_discarding_notes_the_reason_and_keeps_all(folder: Folder) -> None:
    assert "1 discarded" in folder.command(
        "discard", "--group", "bad", "--reason", "sent by a test", "--by", "dora"
    )
    assert [each["sentence"] for each in folder.json("discard", "log/2", "--reason", "again")] == [
        "handled already: discarded by dora"
    ]
    (_, letter, _) = folder.kept()
    (entry,) = letter.history
    assert (letter.state, entry.event, entry.by, entry.note) == (
        "discarded",
        "discarded",
        "dora",
        "sent by a test",
    )
    assert letter.value == BAD.value


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["replay"],
        ["replay", "log/1", "--all"],
        ["replay", "--group", "bad", "--all"],
        ["discard", "log/1"],
        ["discard", "--reason", "a test"],
        ["list", "--limit", "0"],
        ["list", "--limit", "x"],
        ["list", "--limit", "101"],
        ["list", "--limit", "9" * 5000],
        ["list", "--state", "lost"],
        ["show"],
    ],
)
def test_words_that_make_no_sense_end_with_two(folder: Folder, words: list[str]) -> None:
    before = folder.kept()
    with pytest.raises(SystemExit) as ended:
        cli.main(["dead-letters", *words])
    assert ended.value.code == 2
    assert folder.kept() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "log/9"], ["log/9", "clinic dead-letters list"]),
        (["replay", "log/9"], ["log/9", "clinic dead-letters list"]),
        (["replay", "--group", "none"], ["group none", "clinic dead-letters list"]),
        (["discard", "log/9", "--reason", "a test"], ["log/9", "clinic dead-letters list"]),
        (["discard", "log/1", "--reason", " "], ["say why"]),
        (["replay", "log/1", "--by", " "], ["say who"]),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_to_do(
    folder: Folder, words: list[str], said: list[str]
) -> None:
    before = folder.kept()
    line = folder.command(*words, code=1)
    assert line.startswith("clinic: ")
    assert line.count("\n") == 1
    assert all(part in line for part in said)
    assert folder.kept() == before


def test_without_data_the_command_says_what_to_do(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLINIC_DATA_DIR", str(tmp_path / "elsewhere"))
    assert "CLINIC_DATA_DIR" in folder.command("list", code=1)
    monkeypatch.setenv("CLINIC_STORE", "memory")
    assert "CLINIC_STORE=memory" in folder.command("list", code=1)


def test_who_has_no_login_name_is_asked_for_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("no entry for this user")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert "--by" in folder.command("replay", "log/1", code=1)
    assert "charged" in folder.command("replay", "log/1", "--by", "dora")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("dead-letters-list", LetterList),
        ("dead-letters-show", DeadLetterDetails),
        ("dead-letters-replay", OutcomeResponse),
    ],
)
def test_the_shapes_for_machines_are_as_they_were(name: str, shape: type[msgspec.Struct]) -> None:
    assert msgspec.json.schema(shape) == json.loads((SCHEMAS / f"{name}.json").read_text())
