"""What a package outside may import: all of it named in one page, and what it helps with."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clinic import plugins
from clinic.adapters import cloudevents
from clinic.adapters.memory.transport import MemorySubscription
from clinic.domain.messaging.messages import Delivery, Message
from clinic.entrypoints.technologies import memory
from clinic.plugins import FactoryContext, PulledSubscription, SubscriptionEnd, Unavailable
from clinic.testing.builders import EXTENSIONS, MANY_EXTENSIONS, a_message, an_origin
from clinic.testing.transports import TransportContract

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
ROW = re.compile(r"^\| `(clinic[\w.]*)` \| (.*) \|$", re.MULTILINE)


def named() -> dict[str, list[str]]:
    """The public names of the page, by module."""
    return {module: re.findall(r"`([\w.]+)`", names) for module, names in ROW.findall(PAGE.read_text())}


def test_every_name_that_the_page_calls_public_is_there() -> None:
    for module, names in named().items():
        for name in names:
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)


def test_the_page_names_all_of_the_public_module() -> None:
    assert sorted({name.partition(".")[0] for name in named()["clinic.plugins"]}) == sorted(plugins.__all__)
    assert {"clinic.testing.transports", "clinic.testing.builders"} <= named().keys()


class Pulled(PulledSubscription):
    """The memory transport's, as a server would hand out its batches."""

    def __init__(self, log: MemorySubscription) -> None:
        self._log = log
        self.failures: list[Exception] = []

    async def fetch(self, *, wait: bool) -> Sequence[Delivery]:
        if self.failures:
            raise self.failures.pop()
        receiving = asyncio.ensure_future(self._log.receive())
        await asyncio.wait([receiving], timeout=None if wait else 0)
        if receiving.done():
            return receiving.result()
        receiving.cancel()
        return ()

    async def confirm(self, held: Sequence[Delivery]) -> None:
        if self.failures:
            raise self.failures.pop()
        await self._log.acknowledge(held)


def subscription(context: FactoryContext[Any]) -> SubscriptionEnd:
    return SubscriptionEnd(
        memory.Nothing(),
        Pulled(MemorySubscription(memory.memory_log(context.shared), context.group, context.clock)),
    )


class TestPulledSubscription(TransportContract):
    transport = replace(memory.TRANSPORT, subscription=subscription)
    always_answers = True


async def pulled(*messages: Message) -> Pulled:
    shared: dict[str, Any] = {}
    context = TestPulledSubscription().context(Path(), "group", shared)
    await memory.TRANSPORT.publisher(context).publisher.publish(messages)
    return Pulled(MemorySubscription(memory.memory_log(shared), "group", context.clock))


async def test_after_a_failure_a_batch_without_messages_says_that_it_is_over() -> None:
    its = await pulled()
    its.failures.append(Unavailable("away"))
    with pytest.raises(Unavailable):
        await its.receive()
    assert list(await its.receive()) == []


async def test_what_could_not_be_confirmed_is_still_held() -> None:
    its = await pulled(a_message())
    held = await its.receive()
    its.failures.append(Unavailable("away"))
    with pytest.raises(Unavailable):
        await its.acknowledge(held)
    assert await its.receive() == held


async def test_what_is_dropped_comes_again_also_where_somebody_had_given_up_waiting() -> None:
    its = await pulled()
    waiting = asyncio.create_task(its.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    its.drop()
    its.failures.append(Unavailable("away"))
    with pytest.raises(Unavailable):
        await its.receive()


@pytest.mark.parametrize(
    "message",
    [
        a_message(),
        a_message(extensions=MANY_EXTENSIONS),
        a_message(data=None),
        a_message(data=b"", key="", subject="", time=None, extensions=EXTENSIONS),
        a_message(key="Zoë\r\n: %", source=" a b ", data=b"\x00\xff"),
    ],
)
def test_a_message_reads_back_from_headers_of_text(message: Message) -> None:
    headers = plugins.text_headers(message)
    assert all(text.isascii() and text == text.strip() for text in headers.values())
    found = plugins.text_delivery(headers, message.data or b"", an_origin())
    assert found.message == message
    assert cloudevents.message(found.key, found.headers, found.value) == message


@given(st.dictionaries(st.text(max_size=9), st.text()), st.binary())
def test_whatever_a_foreign_producer_wrote_becomes_a_delivery(headers: dict[str, str], value: bytes) -> None:
    found = plugins.text_delivery(headers, value, an_origin())
    assert (found.value or b"") == value


COMMANDS = [
    "python3 -m venv .venv",
    ".venv/bin/pip install 'clinic[testing]' mypy",
    ".venv/bin/pip install --editable .",
    ".venv/bin/pytest",
    ".venv/bin/clinic plugins",
    ".venv/bin/mypy --strict clinic_pigeon.py",
]
OFFLINE = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")


def test_the_page_leads_from_an_empty_folder_to_a_green_suite(tmp_path: Path) -> None:
    """As it says, but for the environment: this one has what its first two commands bring."""
    page = PAGE.read_text()
    blocks = re.findall(r"^```(?:toml|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = ["pyproject.toml", "clinic_pigeon.py", "conftest.py", "test_pigeon.py"]
    for name, block in zip(names, blocks, strict=True):
        assert f"`{name}`" in page
        (tmp_path / name).write_text(block)
    (commands,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert commands.splitlines() == COMMANDS

    def run(*words: str) -> str:
        path = {"PYTHONPATH": str(tmp_path / "site"), "CLINIC_TRANSPORT": "pigeon"}
        command = (sys.executable, "-m", *words)
        ran = subprocess.run(
            command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run("pip", "install", *OFFLINE, "--target", "site", ".")
    assert re.search(r"\d\d passed, \d skipped", run("pytest", "-p", "no:schemathesis", "--color=no"))
    assert re.search(r"transport +pigeon +clinic-pigeon 0\.1\.0", run("clinic", "plugins"))
    assert "CLINIC_PIGEON_BATCH=100" in run("clinic", "settings")
    run("mypy", "--strict", "--follow-imports=silent", "clinic_pigeon.py")
