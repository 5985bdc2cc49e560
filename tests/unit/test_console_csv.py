"""Charges and dead letters as CSV."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from support.apps import PHYSICIAN
from support.pages import Pages, Wire

from clinic.entrypoints.console import csv_files
from clinic.entrypoints.console.client import Service, Services
from clinic.testing.builders import ONE_O_CLOCK, a_charge, a_letter, keep


class Limited(Wire):
    """A wire that is cut after so many answers."""

    answers = 1_000_000

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.is_cut = self.answers == 0 or self.is_cut
        self.answers -= 1
        return await super().handle_async_request(request)


class Exported(Pages):
    """The console of a clinic, on a limited wire to its charges."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.financial: Limited = Limited(lambda: self.clinic.charges)
        financial = Service("financial", "http://financial", self.financial)
        self.services = Services(self.services.appointment, financial, self.services.audit)


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Exported]:
    pages = Exported(tmp_path)
    async with pages.running():
        yield pages


def rows(answer: httpx.Response) -> list[list[str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv; charset=utf-8")
    assert answer.text.endswith("\r\n")
    return list(csv.reader(io.StringIO(answer.text, newline="")))


async def test_charges_are_lines_the_newest_first_narrowed_as_the_address_says(pages: Exported) -> None:
    made = [a_charge(charged_at=ONE_O_CLOCK + timedelta(seconds=number)) for number in range(130)]
    await pages.clinic.financial.charges().add(made)
    answer = await pages.browser.get("/charges.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="charges.csv"'
    header, *lines = rows(answer)
    assert header[:2] == ["appointment_id", "total_price"]
    assert [line[0] for line in lines] == [str(each.appointment_id) for each in reversed(made)]
    assert lines[0][1] == str(made[0].total)
    one = made[7].physician_id
    assert len(rows(await pages.browser.get(f"/charges.csv?physician_id={one}"))) == 2
    early = "/charges.csv?charged_from=2020-01-01 00:00:00&charged_to=2020-01-02 00:00:00"
    assert rows(await pages.browser.get(early)) == [header]
    assert rows(await pages.browser.get(f"/charges.csv?patient_id={PHYSICIAN}")) == [header]


async def test_a_filter_that_is_none_is_said_on_a_page(pages: Exported) -> None:
    answer = await pages.browser.get("/charges.csv?physician_id=somebody")
    assert answer.status_code == 422
    assert "physician_id" in answer.text
    pages.financial.is_cut = True
    assert (await pages.browser.get("/charges.csv")).status_code == 503


async def test_no_text_is_a_formula_for_a_spreadsheet(pages: Exported) -> None:
    await pages.sign_in()
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
    letters = [
        a_letter(position=f"log/{number}", reason=text, about=f'{text}", "x"\r\n')
        for number, text in enumerate(texts)
    ]
    await keep(pages.clinic.financial.dead_letters(), *letters)
    header, *lines = rows(await pages.browser.get("/letters.csv"))
    shown = [dict(zip(header, line, strict=True)) for line in lines]
    assert [each["reason"] for each in shown] == [f"'{text}" for text in texts]
    assert [each["about"] for each in shown] == [f'\'{text}", "x"\r\n' for text in texts]


async def test_letters_are_narrowed_as_their_list_is(pages: Exported) -> None:
    await pages.sign_in()
    done = a_letter(position="log/2", state="discarded")
    await keep(pages.clinic.financial.dead_letters(), a_letter(), done)
    assert [line[0] for line in rows(await pages.browser.get("/letters.csv?state=all"))[1:]] == [
        "log/1",
        "log/2",
    ]
    assert [line[0] for line in rows(await pages.browser.get("/letters.csv?state=discarded"))[1:]] == [
        "log/2"
    ]


async def test_more_rows_than_the_bound_are_said_in_the_last_line(
    pages: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "MAX_ROWS", 100)
    await pages.clinic.financial.charges().add([a_charge() for _ in range(101)])
    lines = rows(await pages.browser.get("/charges.csv"))
    assert len(lines) == 1 + 100 + 1
    assert lines[-1] == ["There are more than 100 rows: narrow the filter."]


async def test_a_service_that_goes_away_midway_is_said_in_the_last_line(pages: Exported) -> None:
    await pages.clinic.financial.charges().add([a_charge() for _ in range(101)])
    pages.financial.answers = 1
    lines = rows(await pages.browser.get("/charges.csv"))
    assert len(lines) == 1 + 100 + 1
    assert lines[-1][0].startswith("Incomplete, the financial service did not answer")
