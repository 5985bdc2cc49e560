"""Each panel of the dashboard says what it shows and what to do about it, and asks for what there is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PANELS: list[dict[str, Any]] = [
    panel
    for panel in json.loads((ROOT / "deploy" / "grafana" / "clinic.json").read_text())["panels"]
    if panel["type"] != "row"
]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_has_a_description_and_a_page_of_the_runbook(panel: dict[str, Any]) -> None:
    assert re.fullmatch(r"[^.]{3,60}", panel["title"])
    assert len(panel["description"]) > 30
    (link,) = panel["links"]
    file, _, anchor = link["url"].partition("#")
    headings = re.findall("^## (.*)$", (ROOT / file).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_dashboard_asks_for_what_the_services_show_and_for_all_of_it() -> None:
    text = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    asked = {re.sub("_(bucket|count|sum)$", "", name) for name in re.findall(r"\bclinic_\w+", text)}
    shown = set(
        re.findall(r"^\| `(clinic_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    )
    assert asked - shown == set()
    assert shown - asked == {"clinic_build_info", "clinic_loads_saved_total"}  # of interest to `make bench`
