"""The OpenAPI documents are kept, so that a review sees what changes, and what breaks is announced."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from contracts.openapi import FOLDER, documents

ROOT = Path(__file__).parents[2]
SCRIPT = Path(".ci/breaking")


async def test_the_documents_are_those_that_are_kept() -> None:
    today = await documents()
    assert set(FOLDER.glob("*.json")) == today.keys()
    for file, text in today.items():
        assert file.read_text() == text, (
            f"{file.name} has changed: `make openapi` keeps it, `git diff` shows what is new, and "
            f"`make breaking BASE=main` says what breaks"
        )


class Clone:
    """A repository of one commit, with the documents and the script that compares them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in (SCRIPT, FOLDER.relative_to(ROOT)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / SCRIPT, folder / SCRIPT)
        shutil.copytree(FOLDER, self.documents, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "CHANGELOG.md").write_text("# Changelog\n")
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "--quiet", "--message", "x")

    @property
    def documents(self) -> Path:
        return self.folder / FOLDER.relative_to(ROOT)

    def git(self, *words: str) -> None:
        subprocess.run(("git", *words), cwd=self.folder, check=True)  # noqa: S607 — wherever it is

    def change(self, path: str, value: Any, name: str = "appointment") -> None:
        """In one of the documents, what is at this path; None takes it away."""
        file = self.documents / f"{name}.json"
        document = found = json.loads(file.read_text())
        *way, last = path.split("/")
        for word in way:
            found = found[word]
        found.pop(last, None)
        if value is not None:
            found[last] = value
        file.write_text(json.dumps(document, indent=1))

    def break_something(self) -> None:
        self.change("components/schemas/AppointmentResponse/required", ["id"])
        self.change("components/schemas/AppointmentResponse/properties/price", None)

    def compare(self, *, go: bool = True, ci: bool = False) -> "subprocess.CompletedProcess[str]":
        """What the script says of the changes since the commit."""
        environment = os.environ | {"CI": str(ci).lower(), "GO": "go" if go else "no-such-command"}
        return subprocess.run(
            (self.folder / SCRIPT, "HEAD"), cwd=self.folder, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_documents_that_are_as_they_were_need_no_tool(clone: Clone) -> None:
    said = clone.compare(go=False, ci=True)
    assert (said.returncode, said.stdout) == (0, "OpenAPI: unchanged since HEAD\n")


def test_a_new_document_needs_no_tool_either(clone: Clone) -> None:
    shutil.copy(clone.documents / "audit.json", clone.documents / "new.json")
    clone.git("add", ".")
    said = clone.compare(go=False, ci=True)
    assert (said.returncode, said.stdout) == (0, "OpenAPI: unchanged since HEAD\n")


def test_where_nothing_can_look_it_is_said(clone: Clone) -> None:
    clone.break_something()
    said = clone.compare(go=False, ci=True)
    assert "NOT LOOKED AT" in said.stderr
    assert said.returncode == 0


@pytest.mark.skipif(
    not (ROOT / ".venv/oasdiff/oasdiff").exists(),
    reason="`.ci/breaking` builds oasdiff when a document changes",
)
def test_what_breaks_is_told_until_it_is_announced(clone: Clone) -> None:
    (clone.folder / ".venv").mkdir()
    (clone.folder / ".venv/oasdiff").symlink_to(ROOT / ".venv/oasdiff")
    clone.change("components/schemas/AppointmentResponse/properties/room", {"type": "string"})
    said = clone.compare()
    assert (said.returncode, said.stderr) == (0, ""), said.stdout
    clone.break_something()
    said = clone.compare()
    assert said.returncode == 1
    assert "removed the required property `price`" in said.stdout
    clone.change("components/schemas/FindingResponse/properties/since", None, "audit")
    assert "items/since` from the response" in clone.compare().stdout
    assert "announce it" in said.stderr
    (clone.folder / "CHANGELOG.md").write_text(
        "# Changelog\n- Breaking: an appointment has no price any more.\n"
    )
    assert clone.compare().returncode == 0
