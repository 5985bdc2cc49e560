"""A real Prometheus answers every query of the dashboard, from what real services showed."""

import math
import os
import shutil
from pathlib import Path

import pytest
from alerts.prometheus import both, dashboard, prometheus


def test_every_query_of_the_dashboard_has_an_answer(tmp_path: Path) -> None:
    if not shutil.which("prometheus"):
        reason = "needs prometheus (Debian: apt-get install prometheus)"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(reason)
    queries = [target["expr"] for panel in dashboard() for target in panel.get("targets", ())]
    assert len(queries) > 20
    with prometheus(both(), tmp_path) as its:
        answers = {query: its.lines(query, "") for query in queries}
    values = {
        query: [value for line in lines for _, value in line.values] for query, lines in answers.items()
    }
    assert [query for query, its_values in values.items() if all(map(math.isnan, its_values))] == []
