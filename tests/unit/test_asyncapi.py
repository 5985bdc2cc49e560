"""What /asyncapi.json and /events say of the event is how it is really sent, and read."""

import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.apps import Clinic, settings

from clinic.adapters import cloudevents
from clinic.domain.events import AppointmentFinished, FinishedDataV1, from_message, to_message
from clinic.domain.money import LIMIT, Money
from clinic.entrypoints import discovery
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.technologies.kafka import KafkaSettings
from clinic.entrypoints.technologies.memory import memory_log
from clinic.entrypoints.web import events, events_page
from clinic.entrypoints.web.events import EXAMPLE, FIELDS, HEADERS, Document, Events
from clinic.testing.builders import ONE_O_CLOCK, an_event

SECRET = "hunter2"  # noqa: S105 — of no server
Json = dict[str, Any]


def both(**changes: Any) -> dict[str, Events]:
    """What the two services say of their events."""
    its = Settings(**changes)
    return {
        "sent": events.sent(AppointmentContainer(settings=its).channel()),
        "received": events.received(FinancialContainer(settings=its).channel()),
    }


ALL = {
    f"{side} over {transport}": found
    for transport in [each.name for each in discovery.installed("transport")]
    for side, found in both(transport=transport).items()
}
each = pytest.mark.parametrize("name", ALL)


def resolved(document: Document, node: Any) -> Any:
    """The node with each reference replaced by what it names."""
    if isinstance(node, list):
        return [resolved(document, child) for child in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {name: resolved(document, child) for name, child in node.items()}
    found: Any = document
    for word in node["$ref"].removeprefix("#/").split("/"):
        found = found[word]
    return resolved(document, found)


def messages(document: Document) -> dict[str, Json]:
    """The messages that are described, whole."""
    return dict(resolved(document, document["components"]["messages"]))


FINISHED = messages(ALL["sent over kafka"].document)["Finished"]


def wrong(value: Any, schema: Json) -> list[str]:
    """What a validator of JSON Schema that is not ours finds."""
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    return [error.message for error in validator.iter_errors(value)]


@each
def test_every_example_is_as_its_schemas_say_and_is_read_as_the_event(name: str) -> None:
    for found in messages(ALL[name].document).values():
        for example in found["examples"]:
            assert wrong(example["headers"], found["headers"]) == []
            assert wrong(example["payload"], found["payload"]) == []
            headers = [(header, text.encode()) for header, text in example["headers"].items()]
            read = cloudevents.message(b"", headers, json.dumps(example["payload"]).encode())
            assert from_message(read) == from_message(EXAMPLE)
            kept = tuple(each for each in EXAMPLE.extensions if not each[0].startswith(cloudevents.HOP))
            assert (read.id, read.time, read.extensions) == (EXAMPLE.id, EXAMPLE.time, kept)


async def test_what_is_sent_is_described_to_its_last_header(tmp_path: Path) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        its_id = await clinic.start()
        traced = {"traceparent": dict(EXAMPLE.extensions)["traceparent"]}
        await clinic.appointments.post(f"/{its_id}/", headers=traced)
        await clinic.charged(its_id)
        ((_, sent),) = memory_log(clinic.appointment.shared()).entries
        document = (await clinic.appointments.get("/asyncapi.json")).json()
    headers = {name: text.decode() for name, text in cloudevents.headers(sent)}
    (found,) = messages(document).values()
    assert list(headers) == list(found["headers"]["properties"]) == list(HEADERS)
    assert wrong(headers, found["headers"]) == []
    assert wrong(json.loads(sent.data or b""), found["payload"]) == []
    assert sent.key == its_id


seconds = st.datetimes(datetime(1, 1, 2), datetime(9999, 1, 1)).map(  # noqa: DTZ001 — Hypothesis takes naive bounds
    lambda moment: moment.replace(microsecond=0, tzinfo=ONE_O_CLOCK.tzinfo)
)


@given(st.uuids(), st.integers(0, LIMIT - 1).map(Money.of_cents), seconds, st.integers(0, 10**7))
def test_whatever_is_written_is_as_described(id_: Any, price: Money, start: datetime, lasts: int) -> None:
    event = an_event(appointment_id=id_, price=price, start=start, end=start + timedelta(seconds=lasts))
    written = to_message(event)
    assert wrong(json.loads(written.data or b""), FINISHED["payload"]) == []
    headers = {name: text.decode() for name, text in cloudevents.headers(written)}
    assert wrong(headers, FINISHED["headers"]) == []


@given(st.data())
def test_whatever_is_as_described_is_read(data: st.DataObject) -> None:
    schema = FINISHED["payload"]
    start, end = sorted(data.draw(st.tuples(seconds, seconds)))
    value = {
        **data.draw(st.dictionaries(st.text(), st.integers())),
        **{name: str(data.draw(st.uuids())) for name in ("appointment_id", "physician_id", "patient_id")},
        "price": data.draw(st.from_regex(schema["properties"]["price"]["pattern"], fullmatch=True)),
        "start": start.isoformat().replace("+00:00", "Z"),
        "end": end.isoformat().replace("+00:00", "Z"),
    }
    assert wrong(value, schema) == []
    read = from_message(msgspec.structs.replace(EXAMPLE, data=json.dumps(value).encode()))
    assert isinstance(read, AppointmentFinished)
    assert str(read.price) == value["price"]


@pytest.mark.parametrize(
    "change",
    [
        {"price": 200.0},
        {"price": "200"},
        {"price": "0200.00"},
        {"start": "2020-12-01T13:00:00+01:00"},
        {"start": "2020-13-01T13:00:00Z"},
        {"end": "2020-12-01T14:00:00.5Z"},
        {"patient_id": "Anna"},
    ],
    ids=str,
)
def test_what_is_never_written_is_not_as_described(change: Json) -> None:
    assert wrong(FINISHED["examples"][0]["payload"] | change, FINISHED["payload"]) != []


def test_every_field_that_is_read_is_described() -> None:
    schema = FINISHED["payload"]
    assert list(schema["properties"]) == list(FIELDS) == list(FinishedDataV1.__struct_fields__)
    assert all(said["description"] for said in schema["properties"].values())
    assert schema["required"] == [f.name for f in msgspec.structs.fields(FinishedDataV1) if f.required]


def test_a_topic_is_described_by_its_own_settings_and_without_a_secret() -> None:
    its = KafkaSettings(
        topic="finished",
        bootstrap_servers="a:9092, b:9093",
        options={"security.protocol": "sasl_ssl", "sasl.password": SECRET},
    )
    found = both(transport="kafka", transport_settings=its, consumer_group="billing")
    for side in found.values():
        channel = side.document["channels"]["finished"]
        assert (channel["address"], channel["bindings"]) == ("finished", {"kafka": {"topic": "finished"}})
        servers = [(server["host"], server["protocol"]) for server in side.document["servers"].values()]
        assert servers == [("a:9092", "kafka-secure"), ("b:9093", "kafka-secure")]
        assert "`billing`" in channel["description"]
        assert SECRET not in json.dumps(side.document) + events_page.page(side)
    (charging,) = found["received"].document["operations"].values()
    assert charging["bindings"]["kafka"]["groupId"]["enum"] == ["billing"]
    assert "<code>billing</code>" in events_page.page(found["received"])
    assert "bindings" not in str(found["sent"].document["operations"])


@pytest.mark.parametrize(("transport", "address"), [("memory", None), ("sqlite", "events.db")])
def test_a_transport_that_no_other_program_can_read_says_so(transport: str, address: str | None) -> None:
    for side in both(transport=transport).values():
        channel = side.document["channels"]["finished"]
        assert channel["address"] == address
        assert "other program" in channel["description"]
        assert "servers" not in side.document
        assert "servers" not in channel


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@each
def test_the_page_shows_all_of_the_document_without_a_script(name: str) -> None:
    found = ALL[name]
    page = Page(events_page.page(found))
    assert page.open == []
    assert "script" not in page.tags
    text = " ".join(page.text.split())
    for said in texts(found.document):
        assert " ".join(said.replace("`", "").split()) in text, said
    for rules in found.rules.values():
        for rule in rules.values():
            assert rule in found.document["info"]["description"]


def texts(document: Document) -> list[str]:
    """What a reader must find on the page."""
    (channel,) = document["channels"].values()
    said = [document["info"]["title"], channel["address"] or "none", channel["description"]]
    for rule in document["info"]["description"].replace("## ", "").replace("- **", "").splitlines():
        said += rule.split("** ")
    for found in messages(document).values():
        (example,) = found["examples"]
        said += [found["name"], found["title"], found["summary"], json.dumps(example["payload"], indent=2)]
        for schema in (found["headers"], found["payload"]):
            for name, field in schema["properties"].items():
                said += [name, field.get("const", ""), field.get("description", "")]
    return [text.rstrip(".") for text in said]


def test_nothing_that_a_setting_holds_becomes_markup() -> None:
    its = KafkaSettings(topic="<b>&`x", bootstrap_servers="<i>")
    found = both(transport="kafka", transport_settings=its, consumer_group="g")
    for side in found.values():
        page = Page(events_page.page(side))
        assert {"b", "i"}.isdisjoint(page.tags)
        assert "<b>&`x" in page.text


@pytest.mark.parametrize("path", ["/events", "/events/", "/asyncapi.json"])
async def test_both_services_show_their_events(tmp_path: Path, path: str) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        for client, title in (
            (clinic.appointments, "Appointments: events"),
            (clinic.charges, "Charges: events"),
        ):
            answer = await client.get(path)
            assert (answer.status_code, title in answer.text) == (200, True)
            assert answer.headers["content-type"] in {"text/html; charset=utf-8", "application/json"}


async def test_all_that_the_page_links_to_is_there(tmp_path: Path) -> None:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        for client in (clinic.appointments, clinic.charges):
            links = re.findall(r'href="([^"]*)"', (await client.get("/events")).text)
            assert {"/asyncapi.json", "/docs", "/redoc"} < set(links)
            assert [link for link in links if (await client.get(link)).status_code != 200] == []
