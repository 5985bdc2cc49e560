"""Where is my charge? The search, and an appointment's way to its charge, in a browser without scripts."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from support.apps import NOBODY, PATIENT, PHYSICIAN
from support.pages import Pages

from clinic.domain.events import event_id
from clinic.testing.builders import a_letter

MARKUP = "<script>alert(1)</script>"


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    async with Pages(tmp_path).running() as pages:
        yield pages


def steps_of(page: str) -> list[str]:
    return re.findall(r'<th scope="row">([^<]+)</th>', page)


async def test_the_way_to_a_charge_is_joined_from_both_services(pages: Pages) -> None:
    its_id = await pages.charged()
    answer = await pages.browser.get(f"/appointments/{its_id}")
    assert answer.status_code == 200
    assert steps_of(answer.text)[:4] == ["started", "finished", "event saved", "event published"]
    assert steps_of(answer.text)[4:] == ["event received", "charged"]
    assert "Done: charged $200.00." in answer.text
    assert PHYSICIAN in answer.text
    assert PATIENT in answer.text


async def test_what_has_come_to_its_charge_does_not_ask_again(pages: Pages) -> None:
    its_id = await pages.charged()
    page = (await pages.browser.get(f"/appointments/{its_id}")).text
    assert "hx-get" not in page
    assert "Publish its event again" not in page
    assert f"/appointments/{its_id}/finish" not in page


async def test_an_open_appointment_can_be_finished_and_the_page_asks_again(pages: Pages) -> None:
    its_id = await pages.clinic.start()
    page = (await pages.browser.get(f"/appointments/{its_id}")).text
    assert "the appointment waits to be finished" in page
    assert f'href="/appointments/{its_id}/finish"' in page
    assert f'hx-get="/appointments/{its_id}" hx-trigger="every 1s"' in page
    assert steps_of(page) == ["started", "now"]


async def test_each_wait_has_a_bar_longer_for_what_took_longer(pages: Pages) -> None:
    its_id = await pages.clinic.start()
    pages.clinic.clock.move(hours=2)
    await pages.clinic.finish(its_id)
    await pages.clinic.charged(its_id)
    page = (await pages.browser.get(f"/appointments/{its_id}")).text
    room = re.search(r'class="room"[^>]* width="([\d.]+)%"', page)
    waits = re.findall(r'class="wait"[^>]* width="([\d.]+)%"', page)
    assert room
    assert len(waits) == 4
    assert 80 < float(room[1]) < 100
    assert all(0 < float(wait) < 5 for wait in waits)
    assert "2 hours" in page


async def test_a_part_is_the_way_alone(pages: Pages) -> None:
    its_id = await pages.clinic.start()
    answer = await pages.browser.get(f"/appointments/{its_id}", headers={"HX-Request": "true"})
    assert answer.text.lstrip().startswith('<section id="way"')
    assert "<html" not in answer.text


async def test_a_dead_letter_about_it_is_a_link_and_its_text_is_no_markup(pages: Pages) -> None:
    its_id = await pages.clinic.start()
    letter = a_letter(about=its_id, message_id=str(event_id(UUID(its_id))), reason=MARKUP)
    await pages.clinic.financial.dead_letters().add([letter])
    page = (await pages.browser.get(f"/appointments/{its_id}")).text
    assert "it waits for a person" in page
    assert f'href="/letters/at/{letter.position}"' in page
    assert MARKUP not in page
    assert "&lt;script&gt;alert(1)" in page


async def test_a_service_that_is_away_is_named_and_the_rest_is_shown(pages: Pages) -> None:
    its_id = await pages.charged()
    pages.financial.is_cut = True
    answer = await pages.browser.get(f"/appointments/{its_id}")
    assert answer.status_code == 200
    assert "The financial service does not answer" in answer.text
    assert steps_of(answer.text) == ["started", "finished", "event saved", "event published"]
    assert "hx-get" in answer.text


async def test_where_both_are_away_the_page_says_so_and_asks_again(pages: Pages) -> None:
    its_id = await pages.clinic.start()
    pages.appointment.is_cut = pages.financial.is_cut = True
    for headers in ({}, {"HX-Request": "true"}):
        answer = await pages.browser.get(f"/appointments/{its_id}", headers=headers)
        assert answer.status_code == 503
        assert "does not answer" in answer.text
        assert f'hx-get="/appointments/{its_id}"' in answer.text


async def test_an_appointment_that_nobody_knows_is_not_found(pages: Pages) -> None:
    answer = await pages.browser.get(f"/appointments/{NOBODY}")
    assert answer.status_code == 404
    assert f"there is no appointment {NOBODY}" in answer.text


@pytest.mark.parametrize("written", ["{}", " {} ", "{{{}}}", "urn:uuid:{}"])
async def test_an_appointments_id_leads_to_its_way(pages: Pages, written: str) -> None:
    its_id = await pages.clinic.start()
    answer = await pages.browser.get("/where", params={"q": written.format(its_id).upper()})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/appointments/{its_id}")


@pytest.mark.parametrize(("who", "field"), [(PHYSICIAN, "physician_id"), (PATIENT, "patient_id")])
async def test_a_persons_id_leads_to_their_list(pages: Pages, who: str, field: str) -> None:
    await pages.clinic.start()
    answer = await pages.browser.get("/where", params={"q": who})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/?{field}={who}")


async def test_a_position_leads_to_its_letter(pages: Pages) -> None:
    answer = await pages.browser.get("/where", params={"q": "a topic/0/17?x"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/letters/at/a%20topic/0/17%3Fx")


@pytest.mark.parametrize(("wanted", "status"), [("", 200), (NOBODY, 404), ("abc", 422), (MARKUP[:7], 422)])
async def test_what_leads_nowhere_says_what_can_be_searched(pages: Pages, wanted: str, status: int) -> None:
    answer = await pages.browser.get("/where", params={"q": wanted})
    assert answer.status_code == status
    assert "an appointment&#39;s id" in answer.text
    assert "<script" not in answer.text.partition("<main")[2].partition("</main")[0]


async def test_a_search_that_a_service_is_missing_for_names_it(pages: Pages) -> None:
    pages.appointment.is_cut = True
    answer = await pages.browser.get("/where", params={"q": NOBODY})
    assert answer.status_code == 503
    assert "The appointment service does not answer." in answer.text


async def test_only_who_is_signed_in_publishes_an_event_again(pages: Pages) -> None:
    its_id = await pages.charged()
    path = f"/appointments/{its_id}"
    pages.financial.is_cut = True  # so that it is not known whether it is charged
    assert "Publish its event again" not in (await pages.browser.get(path)).text
    answer = await pages.send(f"{path}/republish")
    assert answer.headers["location"] == f"/sign-in?back=%2Fappointments%2F{its_id}"
    pages.financial.is_cut = False
    await pages.sign_in()
    pages.financial.is_cut = True
    assert "Publish its event again" in (await pages.browser.get(path)).text
    answer = await pages.send(f"{path}/republish")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?republished=yes")
    await pages.clinic.appointment_telemetry.seen("published", times=2)
    assert "Its event is published again." in (await pages.browser.get(answer.headers["location"])).text


async def test_what_is_not_finished_is_not_published_again(pages: Pages) -> None:
    its_id = await pages.clinic.start()
    await pages.sign_in()
    assert "Publish its event again" not in (await pages.browser.get(f"/appointments/{its_id}")).text
    answer = await pages.send(f"/appointments/{its_id}/republish")
    assert answer.status_code == 422
    assert "not finished" in answer.text


async def test_an_outcome_that_is_not_known_says_so(pages: Pages) -> None:
    its_id = await pages.charged()
    await pages.sign_in()
    pages.appointment.is_cut = True
    answer = await pages.send(f"/appointments/{its_id}/republish", page="/where")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/appointments/{its_id}?republished=unknown",
    )
    page = (await pages.browser.get(answer.headers["location"])).text
    assert "is not known: the service did not answer. Do it again" in page
