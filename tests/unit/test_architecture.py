"""The hexagon stands on the standard library and msgspec, and on nothing else."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import clinic.domain

DOMAIN = Path(clinic.domain.__file__).parent
FILES = sorted(DOMAIN.rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """The full name of every module that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def is_allowed(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in {*sys.stdlib_module_names, "msgspec"} or (
        module + "."
    ).startswith("clinic.domain.")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DOMAIN)))
def test_the_domain_imports_the_standard_library_msgspec_and_itself(file: Path) -> None:
    assert [module for module in imported(file) if not is_allowed(module)] == []


def test_all_of_the_domain_is_looked_at() -> None:
    assert {"events.py", "model.py", "ports.py", "use_cases.py"} <= {file.name for file in FILES}


@pytest.mark.parametrize(
    "module", ["litestar", "clinic.adapters.memory.charges", "clinic.domains", ".relative", "clinic"]
)
def test_anything_else_would_be_seen(module: str) -> None:
    assert not is_allowed(module)


def test_only_its_own_folder_knows_opentelemetry() -> None:
    files = [file for file in DOMAIN.parent.rglob("*.py") if any(map(is_opentelemetry, imported(file)))]
    assert {str(file.parent.relative_to(DOMAIN.parent)) for file in files} == {"entrypoints/otel"}


def is_opentelemetry(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "opentelemetry" or "entrypoints.otel" in module


# The history of all dead letters took 20 and 35 lines: a method of a port, and of three stores. To leave a
# log alone whose -wal was removed took seven more, to count what a bulk has done nine, to hear of whatever
# Kafka's client raises beside the loop eighteen, to cut what MongoDB says one more, to notice a database
# that was emptied in place, and to find a linked one's log and lock, 24, a thread for calls that may hang
# twenty (eighteen fewer elsewhere), to look every few seconds under a long lease four; not to be
# misled by a timer that comes early took the domain one, nor by a clock that was ahead another.
# To have a server work while its callers are answered took four, and starts a quarter more a second. To read
# one part of a batch while another is stored took the domain 27, and drains a quarter faster.
@pytest.mark.parametrize(("room", "lines"), [("domain", 2649), ("adapters", 3622)])
def test_a_room_keeps_within_its_budget_of_lines(room: str, lines: int) -> None:
    files = list((DOMAIN.parent / room).rglob("*.py"))
    assert files
    assert sum(len(file.read_text().splitlines()) for file in files) <= lines


def test_no_module_takes_a_name_of_the_standard_library() -> None:
    names = {file.stem for file in DOMAIN.parent.rglob("*.py")} - {"__init__", "__main__"}
    assert names & sys.stdlib_module_names == set()


def test_no_test_has_a_name_of_more_than_80_characters() -> None:
    files = list(Path(__file__).parents[1].rglob("*.py"))
    names = [name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())]
    assert "test_no_test_has_a_name_of_more_than_80_characters" in names
    assert [name for name in names if len(name) > 80] == []


def assigned_at_once(file: Path) -> Iterator[int]:
    """How many things each parallel assignment of values assigns."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            yield from (len(target.elts) for target in node.targets if isinstance(target, ast.Tuple))


def test_no_statement_assigns_three_values_or_more_at_once() -> None:
    counts = {file: list(assigned_at_once(file)) for file in DOMAIN.parent.rglob("*.py")}
    assert any(counts.values())
    assert {str(file): found for file, found in counts.items() if max(found, default=0) > 2} == {}
