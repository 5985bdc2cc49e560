"""Dead letters in the console: the list, a letter, and a replay or discard that is previewed first."""

import re
from collections.abc import AsyncIterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from support.pages import Pages

from clinic.adapters import cloudevents
from clinic.domain.events import to_message
from clinic.domain.messaging.dead_letters import DeadLetter, DeadLetterFilter, LetterState
from clinic.testing.builders import a_history_entry, a_letter, an_event, keep

MARKUP = "<script>alert(1)</script>"
PART = {"HX-Request": "true"}


def mended(number: int, **changes: Any) -> DeadLetter:
    """One that can be charged by now."""
    message = to_message(an_event())
    value, headers = message.data or b"", tuple(cloudevents.headers(message))
    letter = a_letter(
        position=f"topic/0/{number:05}", about=message.subject, type=message.type, group="mended"
    )
    return replace(
        letter, key=message.key.encode(), headers=headers, value=value, length=len(value), **changes
    )


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    async with Pages(tmp_path).running() as pages:
        await pages.sign_in()
        yield pages


async def kept(pages: Pages, *letters: DeadLetter) -> None:
    await keep(pages.clinic.financial.dead_letters(), *letters)


async def in_state(pages: Pages, state: LetterState) -> Sequence[DeadLetter]:
    found: Sequence[DeadLetter] = await pages.clinic.financial.dead_letters().page(
        DeadLetterFilter(state), 1000
    )
    return found


def fields(page: str, button: str) -> list[tuple[str, str]]:
    """What the form with this button sends."""
    forms = re.findall(r"<form.*?</form>", page, re.DOTALL)
    (form,) = [each for each in forms if f"{button}</button>" in each]
    hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)
    return [(unescape(name), unescape(value)) for name, value in hidden]


async def sent(
    pages: Pages, form: list[tuple[str, str]], *, part: bool = False, **more: Any
) -> httpx.Response:
    data: dict[str, Any] = {}
    for name, value in form:
        data.setdefault(name, []).append(value)
    return await pages.browser.post("/letters/handle", data=data | more, headers=PART if part else {})


async def preview(pages: Pages, do: str, **more: Any) -> httpx.Response:
    """The answer to the form of the list."""
    page = (await pages.browser.get("/letters/")).text
    return await sent(pages, fields(page, "Replay the selected …"), do=do, **more)


async def test_the_list_shows_groups_and_what_waits_with_the_filter_in_its_address(pages: Pages) -> None:
    gone = a_letter(position="log/9", group="bad", state="discarded", reason="long gone")
    await kept(pages, mended(1), a_letter(position="log/2", group="bad", reason="data"), gone)
    page = (await pages.browser.get("/letters/")).text
    assert "mended</code>" in page
    assert "bad</code>" in page
    assert "topic/0/00001" in page
    assert "log/9" not in page
    assert "Replay all 2 …" in page
    narrow = (await pages.browser.get("/letters/?state=all&group=bad")).text
    assert re.findall(r'name="position" value="([^"]+)"', narrow) == ["log/2", "log/9"]
    assert "/letters.csv?state=all&amp;group=bad" in narrow
    about = (await pages.browser.get("/letters/?about=nobody")).text
    assert "Replay all" not in about


async def test_a_long_list_comes_in_pages_in_a_stable_order(pages: Pages) -> None:
    await kept(pages, *(mended(number) for number in range(120)))
    path, found = "/letters/?group=mended", list[str]()
    while path:
        page = (await pages.browser.get(path)).text
        found += re.findall(r'name="position" value="([^"]+)"', page)
        following = re.search(r'<a href="([^"]+)" rel="next"', page)
        path = unescape(following[1]) if following else ""
    assert found == [f"topic/0/{number:05}" for number in range(120)]


async def test_a_letter_shows_its_message_only_when_asked_and_its_history(pages: Pages) -> None:
    entry = a_history_entry(event="discarded", by="bob", note=MARKUP)
    await kept(pages, mended(1, history=(entry,), entries=1, reason=MARKUP))
    page = (await pages.browser.get("/letters/at/topic/0/00001")).text
    assert re.search(r"<details><summary>Value .*?<pre>\{.*?</details>", page, re.DOTALL)
    assert re.search(r"<details><summary>Headers .*?ce_type.*?</details>", page, re.DOTALL)
    assert "discarded, bob: <q>&lt;script&gt;" in page
    assert MARKUP not in page


async def test_text_of_a_letter_is_no_markup_on_any_page(pages: Pages) -> None:
    position = 'log/"><script>alert(1)</script>'
    await kept(
        pages, a_letter(position=position, about=MARKUP, type=MARKUP, reason=MARKUP, value=MARKUP.encode())
    )
    listed = await pages.browser.get("/letters/")
    its_path = re.search(r'href="(/letters/at/[^"]+)"', listed.text)
    assert its_path
    answers = [
        listed,
        await pages.browser.get(unescape(its_path[1])),
        await preview(pages, "replay matching"),
        await preview(pages, "discard selected", position=[position], reason=MARKUP),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [each for each in answers if "<script>alert" in each.text or "alert(1)" not in each.text] == []


async def test_a_preview_says_what_would_become_of_each_and_changes_nothing(pages: Pages) -> None:
    await kept(pages, mended(1), a_letter(position="topic/0/2"))
    answer = await preview(pages, "replay matching")
    assert answer.status_code == 200
    assert "would be charged $400.00" in answer.text
    assert "fails again: " in answer.text
    assert len(await in_state(pages, "waiting")) == 2
    assert (await pages.clinic.charges.get("/")).json()["items"] == []


async def test_what_was_confirmed_is_done_by_whoever_is_signed_in(pages: Pages) -> None:
    await kept(pages, mended(1))
    form = fields((await preview(pages, "replay matching")).text, "Replay 1")
    answer = await sent(pages, form)
    assert "charged $400.00" in answer.text
    assert "would be" not in answer.text
    (letter,) = await in_state(pages, "replayed")
    history = (await pages.browser.get("/history/")).text
    assert re.search(
        rf"<td>anna</td><td>replayed</td>.*?{letter.position}.*?charged 400.00", history, re.DOTALL
    )


async def test_250_letters_are_three_batches_that_the_page_asks_for_itself(pages: Pages) -> None:
    await kept(pages, *(mended(number) for number in range(250)))
    first = await preview(pages, "replay matching")
    assert "would be charged: 100" in first.text
    more = await sent(pages, fields(first.text, "Preview the next 100"), part=True)
    assert "would be charged: 200" in more.text
    assert 'hx-trigger="load' not in more.text
    answer = await sent(pages, fields(first.text, "Replay 250"), part=True)
    shown, seen = [], 0
    while True:
        shown.append(answer.text.count('href="/letters/at/'))
        seen += 1
        if 'hx-trigger="load' not in answer.text:
            break
        answer = await sent(pages, fields(answer.text, "Continue"), part=True)
    assert shown == [100, 100, 50]
    assert "charged: 250" in answer.text
    assert len(await in_state(pages, "replayed")) == 250


async def test_stop_ends_the_asking_and_continue_goes_on_from_there(pages: Pages) -> None:
    await kept(pages, *(mended(number) for number in range(150)))
    form = fields((await preview(pages, "replay matching")).text, "Replay 150")
    answer = await sent(pages, form, part=True)
    assert 'id="stop"' in answer.text
    assert 'hx-include="#stop"' in answer.text
    stopped = await sent(pages, fields(answer.text, "Continue"), part=True, stop="yes")
    assert 'hx-trigger="load' not in stopped.text
    assert "charged: 100" in stopped.text
    assert len(await in_state(pages, "waiting")) == 50
    assert "charged: 150" in (await sent(pages, fields(stopped.text, "Continue"), part=True)).text


async def test_without_scripts_each_batch_has_a_button(pages: Pages) -> None:
    await kept(pages, *(mended(number) for number in range(101)))
    answer = await sent(pages, fields((await preview(pages, "replay matching")).text, "Replay 101"))
    assert "<html" in answer.text
    assert 'hx-trigger="load' not in answer.text
    assert "stop" not in answer.text
    answer = await sent(pages, fields(answer.text, "Continue"))
    assert "charged: 101" in answer.text


async def test_the_page_drops_the_oldest_of_more_than_a_thousand_lines(pages: Pages) -> None:
    await kept(pages, mended(1))
    form = fields((await preview(pages, "replay matching")).text, "Replay 1")
    answer = await sent(pages, form, part=True, batch="10", charged="1000")
    assert '<tbody id="batch-0" hx-swap-oob="delete">' in answer.text
    assert "charged: 1,001" in answer.text


async def test_discarding_asks_for_a_reason_before_anything_changes(pages: Pages) -> None:
    await kept(pages, mended(1))
    asked = await preview(pages, "discard selected", position=["topic/0/00001"])
    assert 'name="reason"' in asked.text
    form = fields(asked.text, "Discard 1")
    refused = await sent(pages, form)
    assert refused.status_code == 422
    assert "Say why" in refused.text
    assert len(await in_state(pages, "waiting")) == 1
    done = await sent(pages, fields(refused.text, "Discard 1"), reason="sent by a test")
    assert done.status_code == 200
    assert (await pages.clinic.financial.dead_letters().get("topic/0/00001")).history[
        0
    ].note == "sent by a test"
    assert len(await in_state(pages, "discarded")) == 1


async def test_a_selection_is_handled_one_by_one_and_nothing_else(pages: Pages) -> None:
    await kept(pages, *(mended(number) for number in range(3)))
    chosen = ["topic/0/00000", "topic/0/00002"]
    form = fields((await preview(pages, "replay selected", position=chosen)).text, "Replay 2")
    assert "charged: 2" in (await sent(pages, form)).text
    assert [each.position for each in await in_state(pages, "waiting")] == ["topic/0/00001"]
    assert (await preview(pages, "replay selected")).status_code == 422


async def test_a_service_that_goes_away_midway_leaves_an_unknown_outcome_and_a_way_on(pages: Pages) -> None:
    await kept(pages, *(mended(number) for number in range(150)))
    form = fields((await preview(pages, "replay matching")).text, "Replay 150")
    answer = await sent(pages, form, part=True)
    pages.financial.is_cut = True
    cut = await sent(pages, fields(answer.text, "Continue"), part=True)
    assert cut.status_code == 503
    assert "is not known" in cut.text
    assert 'hx-trigger="load' not in cut.text
    pages.financial.is_cut = False
    assert "charged: 150" in (await sent(pages, fields(cut.text, "Continue"), part=True)).text


async def test_who_is_not_signed_in_is_asked_to_and_sees_nothing_that_changes(pages: Pages) -> None:
    await kept(pages, mended(1))
    form = fields((await preview(pages, "replay matching")).text, "Replay 1")
    await pages.send("/sign-out", page="/")
    for path in ("/letters/", "/letters/at/topic/0/00001", "/history/", "/letters.csv"):
        answer = await pages.browser.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?back=%2F")
        assert "topic/0" not in answer.text
    assert (await sent(pages, form)).headers["location"] == "/sign-in?back=%2Fletters%2F"
    part = await sent(pages, form, part=True)
    assert part.headers["hx-redirect"] == "/sign-in?back=%2Fletters%2F"
    assert len(await in_state(pages, "waiting")) == 1


async def test_a_wrong_token_is_said_at_signing_in(pages: Pages) -> None:
    await pages.send("/sign-out", page="/")
    answer = await pages.send("/sign-in", page="/", by="eve", token="wrong")  # noqa: S106 — it is wrong
    assert answer.status_code == 422
    assert "This is not the operator&#39;s token." in answer.text
    assert (await pages.browser.get("/letters/")).status_code == 303


async def test_the_history_comes_in_pages_the_newest_first(pages: Pages) -> None:
    await kept(pages, letter := a_letter())
    for number in range(60):
        pages.clinic.clock.move(seconds=1)
        entry = a_history_entry(event="failed again", at=pages.clinic.clock(), note=f"note {number:02}")
        await pages.clinic.financial.dead_letters().record(letter, entry)
        letter = letter.with_entry(entry)
    first = (await pages.browser.get("/history/")).text
    following = re.search(r'<a href="([^"]+)" rel="next"', first)
    assert following
    rest = (await pages.browser.get(unescape(following[1]))).text
    notes = [f"note {number:02}" for number in reversed(range(60))]
    assert re.findall("note [0-9]+", first) + re.findall("note [0-9]+", rest) == notes


async def test_a_run_ends_at_the_number_that_was_previewed(pages: Pages) -> None:
    """What arrives while a person reads the preview, or while it runs, was not looked at."""
    await kept(pages, *(mended(number) for number in range(100)))
    form = fields((await preview(pages, "discard matching", reason="sent by a test")).text, "Discard 100")
    await kept(pages, *(mended(number) for number in range(100, 150)))
    answer = await sent(pages, form, reason="sent by a test", part=True)
    assert 'hx-trigger="load' not in answer.text
    assert len(await in_state(pages, "waiting")) == 50


async def test_what_became_of_the_first_is_shown_where_another_is_refused(pages: Pages) -> None:
    await kept(pages, mended(1), mended(3))
    form = [("position", f"topic/0/0000{number}") for number in (1, 2, 3)]
    token = fields((await pages.browser.get("/letters/")).text, "Replay the selected …")
    answer = await sent(pages, [*token, *form], do="discard selected", preview="", reason="sent by a test")
    assert answer.status_code == 503
    assert "there is no dead letter at topic/0/00002" in answer.text
    assert 'name="position" value="topic/0/00003"' in answer.text
    assert [each.position for each in await in_state(pages, "discarded")] == ["topic/0/00001"]


async def test_a_preview_that_nobody_answers_is_no_unknown_outcome(pages: Pages) -> None:
    await kept(pages, mended(1))
    page = fields((await pages.browser.get("/letters/")).text, "Replay the selected …")
    pages.financial.is_cut = True
    answer = await sent(pages, page, do="replay matching", preview="yes")
    assert answer.status_code == 503
    assert "is not known" not in answer.text
    assert "Discard" not in answer.text


@pytest.mark.parametrize("path", ["history", "history/", "groups/", "nothing"])
async def test_what_is_no_position_is_not_found(path: str, pages: Pages) -> None:
    assert (await pages.browser.get(f"/letters/at/{path}")).status_code == 404
