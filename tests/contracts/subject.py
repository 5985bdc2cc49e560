"""What the suites share."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

T = TypeVar("T")


class Contract:
    """A suite whose subject keeps its data at a place: opened there again, it is the same data."""

    patience: ClassVar[float] = 10
    """Seconds after which something that should have come counts as lost."""
    survives: ClassVar[bool] = True
    """What it keeps outlives its process."""
    several: ClassVar[bool] = True
    """Several processes can work on the same data at the same time."""
    always_answers: ClassVar[bool] = False
    """There is no server or file between the caller and the data that could fail to answer."""

    @pytest.fixture
    def where(self, tmp_path: Path) -> Path:
        """A place of this test's own. A subject on a server makes a name of it."""
        return tmp_path

    async def soon(self, awaited: Awaitable[T]) -> T:
        """Its result, unless it never comes."""
        async with asyncio.timeout(self.patience):
            return await awaited

    def only_if(self, feature: bool, what: str) -> None:
        """Skip a promise that the subject declares it does not give."""
        if not feature:
            pytest.skip(f"declared: {what}")
