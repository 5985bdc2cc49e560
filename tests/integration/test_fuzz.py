"""What the OpenAPI documents allow, and what they forbid, is answered as they say."""

from pathlib import Path

import pytest
from fuzz.runs import a_pair, audit, fuzz, journey
from support.processes import Process

EXAMPLES = 15
"""For each operation: some 20 seconds on two cores."""


@pytest.mark.timeout(900)
async def test_every_answer_to_whatever_is_sent_is_described(
    tmp_path: Path, processes: list[Process]
) -> None:
    pair = a_pair(tmp_path)
    processes += pair.services
    for fuzzed in await fuzz(pair, EXAMPLES, seed=1, within=600):
        assert fuzzed.is_good, fuzzed.report
        assert fuzzed.requests > 300, fuzzed.report
    seen = await journey(pair, within=200)
    assert seen["charged"] > 0, seen
    assert seen["GET /{charged_id} 200"] >= seen["charged"], seen
    audited = await audit(pair)
    assert audited.exit_code == 0, audited.printed + audited.complained
    for service in pair.services:
        assert await service.stopped() == 0
        assert "unforeseen" not in service.complained
        assert "Traceback" not in service.complained
