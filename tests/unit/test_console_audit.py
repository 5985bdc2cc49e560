"""The standing audit in the console."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from support.pages import Pages, Wire
from support.standing import Standing, charge, finished

from clinic.domain.appointment.model import Appointment
from clinic.domain.money import Money
from clinic.entrypoints.console.client import Service, Services
from clinic.testing.builders import a_letter

MARKUP = "<script>alert(1)</script>"


class Audited(Pages):
    """The console of a clinic that has a standing audit."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.standing = Standing(self.clinic)
        self.rounds: httpx.AsyncClient
        self.audit = Wire(lambda: self.rounds)
        its = self.services
        self.services = Services(its.appointment, its.financial, Service("audit", "http://audit", self.audit))


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Audited]:
    pages = Audited(tmp_path)
    async with pages.running():
        yield pages


async def the_page(pages: Audited) -> str:
    async with pages.standing.over_http() as pages.rounds:
        await pages.standing.turns.ended()
        answer = await pages.browser.get("/audit/")
        assert answer.status_code == 200
        return answer.text


async def test_an_audit_that_found_nothing_says_so(pages: Audited) -> None:
    await charge(pages.clinic, await finished(pages.clinic))
    page = await the_page(pages)
    assert "None: every appointment that was finished is charged as it should be." in page
    assert re.search(r"Appointments compared</dt><dd>1</dd>", page)
    assert "none yet" not in page


async def test_findings_name_what_mends_them_and_the_operator_can_repair(pages: Audited) -> None:
    missing, wrong = [await finished(pages.clinic) for _ in range(2)]
    await charge(pages.clinic, wrong, total=Money("0.10"))
    page = await the_page(pages)
    assert f'href="/appointments/{missing.id}"' in page
    assert "charged, and not what it should be" in page
    assert "$0.10" in page
    assert "a person has to look" in page
    assert f'action="/appointments/{missing.id}/republish"' not in page


async def test_the_operator_sees_what_a_repair_would_do_before_it_is_done(pages: Audited) -> None:
    missing: Appointment = await finished(pages.clinic)
    await pages.sign_in()
    page = await the_page(pages)
    (form,) = re.findall(
        rf'<form method="post" action="/appointments/{missing.id}/republish">.*?</form>', page
    )
    assert "It would be charged $400.00." in form
    assert "_csrf_token" in form


async def test_what_a_dead_letter_is_about_leads_to_it(pages: Audited) -> None:
    its = await finished(pages.clinic)
    event = its.finished_event
    assert event
    letter = a_letter(about=str(its.id), message_id=str(event.id), reason=MARKUP)
    await pages.clinic.financial.dead_letters().add([letter])
    page = await the_page(pages)
    assert f'href="/letters/?about={its.id}"' in page
    assert MARKUP not in page


async def test_a_round_that_could_not_look_is_said(pages: Audited) -> None:
    async with pages.standing.over_http() as pages.rounds:
        await pages.standing.turns.ended()
        pages.clinic.clock.move(seconds=timedelta(days=1).total_seconds())
        page = (await pages.browser.get("/audit/")).text
    assert "no round has ended well since" in page


async def test_an_audit_that_is_away_or_off_is_said(pages: Audited) -> None:
    pages.audit.is_cut = True
    answer = await pages.browser.get("/audit/")
    assert answer.status_code == 503
    assert "The standing audit does not answer" in answer.text
    assert "CLINIC_AUDIT_EVERY=off" in answer.text
