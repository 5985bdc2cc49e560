"""What the documentation prints is what the commands print, and what it names exists."""

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dependency_injector.providers import Object
from support.apps import Clinic, settings
from support.folders import Folder, a_folder

from clinic.adapters import cloudevents
from clinic.domain.events import to_message
from clinic.domain.messaging.messages import PublishResult
from clinic.entrypoints.cli import main as cli
from clinic.entrypoints.containers import AppointmentContainer
from clinic.testing.builders import TWO_O_CLOCK, a_letter, an_appointment, an_event, an_origin

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
OPERATIONS = ROOT / "docs" / "operations.md"
CHARGED = an_appointment(id=UUID("01a20f04-b64a-70c0-9320-35c6d5b319a0"))
MISSING = an_appointment(id=UUID("01a20f04-b65f-77f4-a70e-150db411edc6"))
BLOCK = re.compile(r"^```\n(\$ clinic .*?)^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"`((?:tests|src|docs|examples)/[\w/.-]+\.\w+)`|\]\(([^)#:]+)(?:#[^)]*)?\)")


def sessions() -> list[str]:
    return BLOCK.findall(OPERATIONS.read_text())


def commands() -> Iterator[tuple[str, str]]:
    """Each command of the page and the output beneath it."""
    for session in sessions():
        for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Folder]:
    with a_folder(tmp_path, monkeypatch, capsys) as folder:
        yield folder


def finish(folder: Folder, which: Any, position: str) -> None:
    async def finished(appointment: Any, _: Any) -> None:
        await appointment.appointments().add(which)
        await appointment.finish_appointment()(which.id)
        (claimed,) = await appointment.outbox().claim(1)
        published = PublishResult(claimed.message, position, TWO_O_CLOCK + timedelta(milliseconds=3))
        await appointment.outbox().confirm([published])

    with AppointmentContainer.clock.override(Object(lambda: TWO_O_CLOCK)):
        folder.run(finished)


def letter(position: str, appointment_id: UUID, **changes: Any) -> Any:
    message = to_message(an_event(appointment_id=appointment_id))
    value = message.data or b""
    return a_letter(
        position=position,
        about=str(appointment_id),
        type=message.type,
        key=message.key.encode(),
        headers=tuple(cloudevents.headers(message)),
        value=value,
        length=len(value),
        **changes,
    )


def prepare(folder: Folder) -> None:
    """One appointment charged, one missing its charge, two dead letters."""
    finish(folder, CHARGED, "f0541a0a8bf7c64b/1")
    finish(folder, MISSING, "f0541a0a8bf7c64b/2")
    published, received = (TWO_O_CLOCK + timedelta(milliseconds=each) for each in (3, 18))
    origin = an_origin(position="f0541a0a8bf7c64b/1", published_at=published, received_at=received)
    folder.charge(CHARGED, origin=origin, charged_at=received)
    reason = "clinic.appointment.finished.v1 with data that cannot be read: missing field `room`"
    letters = [letter(f"log/{each}", UUID(int=each), reason=reason) for each in (1, 2)]
    folder.run(lambda _, financial: financial.dead_letters().add(letters))


def test_the_outputs_in_the_documentation_are_what_the_commands_print(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(folder)
    capsys.readouterr()
    seen = []
    for command, wanted in commands():
        cli.main(shlex.split(command)[1:])
        printed = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
        assert printed == wanted, f"{command}\n{printed}"
        seen.append(shlex.split(command)[1:3])
    assert [words[0] for words in seen] == ["trace", "audit", *["dead-letters"] * 3]


async def test_the_answer_in_the_readme_is_what_the_service_answers(tmp_path: Path) -> None:
    people = {"physician_id": str(UUID(int=1)), "patient_id": str(UUID(int=2))}
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        started = (await clinic.appointments.post("/", json=people)).json()
        await clinic.appointments.post(f"/{started['id']}/")
        answer = await clinic.charges.get(f"/{started['id']}/", headers={"Prefer": "wait=5"})
    for name in ("README.md", "README.pt-BR.md"):
        assert f"# {answer.text.replace(started['id'], '…')}\n" in (ROOT / name).read_text()


async def test_a_start_is_repeated_as_the_documentation_says(tmp_path: Path) -> None:
    people = {"physician_id": str(UUID(int=1)), "patient_id": str(UUID(int=2))}
    pages = [ROOT / "README.md", ROOT / "README.pt-BR.md", OPERATIONS]
    keys = [key for page in pages for key in re.findall(r"-H 'Idempotency-Key: (.*?)'", page.read_text())]
    assert len(keys) == len(pages)
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        for key in keys:
            post = partial(clinic.appointments.post, "/", headers={"Idempotency-Key": key})
            first, again = [await post(json=people) for _ in range(2)]
            assert (first.status_code, again.content) == (201, first.content)
            refused = await post(json=people | {"patient_id": str(UUID(int=3))})
            assert f"\n  {refused.text}\n" in OPERATIONS.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = [path or page.parent / link for path, link in NAMED.findall(page.read_text())]
    assert [str(each) for each in named if not (ROOT / each).exists()] == []


def shell(page: str) -> list[str]:
    """The commands in its blocks, without what explains them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line))]


def test_both_readmes_have_the_same_picture_and_commands_and_name_each_other() -> None:
    english, portuguese = ((ROOT / name).read_text() for name in ("README.md", "README.pt-BR.md"))
    assert english.split("```")[1] == portuguese.split("```")[1]
    assert len(shell(english)) > 5
    assert shell(english) == shell(portuguese)
    assert "(README.pt-BR.md)" in english
    assert "(README.md)" in portuguese
