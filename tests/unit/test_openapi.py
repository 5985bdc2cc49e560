"""What /openapi.json says is what is really answered."""

import re
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from dependency_injector.providers import Object
from support.apps import (
    NIL,
    NOBODY,
    PATIENT,
    PHYSICIAN,
    Clinic,
    UnreachableAppointments,
    UnreachableCharges,
    exactly,
    settings,
)

from clinic.testing.builders import a_letter

PROBLEM = "application/problem+json"
TOKEN = "0123456789abcdef"  # noqa: S105 — of no other service than these tests'
Json = dict[str, Any]

IGNORED = {"description", "examples", "title", "default"}
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, Decimal),
    "boolean": bool,
    "null": type(None),
}


@pytest.fixture
async def clinic(tmp_path: Path) -> AsyncIterator[Clinic]:
    async with Clinic(settings("memory", tmp_path)).running() as clinic:
        yield clinic


@pytest.fixture
async def operated(tmp_path: Path) -> AsyncIterator[Clinic]:
    """With an operator's token, and letters that wait for one."""
    clinic = Clinic(settings("memory", tmp_path, operator_token=TOKEN))
    await clinic.financial.dead_letters().add([a_letter(position=f"topic/0/{number}") for number in range(3)])
    async with clinic.running():
        yield clinic


@pytest.fixture
async def unreachable(tmp_path: Path) -> AsyncIterator[Clinic]:
    clinic = Clinic(settings("memory", tmp_path))
    clinic.appointment.appointments.override(Object(UnreachableAppointments(clinic.clock, 3.0)))
    clinic.financial.charges.override(Object(UnreachableCharges()))
    async with clinic.running():
        yield clinic


class Document:
    """A service's OpenAPI document, and a small validator for the words of JSON Schema that it uses."""

    def __init__(self, document: Json) -> None:
        self.document = document

    def operations(self) -> Iterator[tuple[str, str, Json]]:
        for path, operations in self.document["paths"].items():
            for method, operation in operations.items():
                yield method, path, operation

    def operation(self, request: httpx.Request) -> Json:
        path = re.sub(r"^/[0-9a-f-]{36}", "/{appointment_id}", request.url.path).rstrip("/") or "/"
        path = re.sub(r"^/dead-letters/.+/.+", "/dead-letters/{position}", path)
        return dict(self.document["paths"][path][request.method.lower()])

    def describes(self, answer: httpx.Response) -> None:
        """Fails where the answer is not one that the document announces."""
        responses = self.operation(answer.request)["responses"]
        assert str(answer.status_code) in responses, (
            f"{answer.status_code} is not announced for {answer.request}"
        )
        content = responses[str(answer.status_code)]["content"]
        assert answer.headers["content-type"] in content, (
            f"{answer.headers['content-type']} is not announced for {answer.request}"
        )
        wrong = list(self.wrong(exactly(answer), content[answer.headers["content-type"]]["schema"], "body"))
        assert not wrong, wrong

    def component(self, name: str) -> Json:
        return dict(self.document["components"]["schemas"][name])

    def wrong(self, value: Any, schema: Json, where: str) -> Iterator[str]:
        """What is wrong with the value. A word that this validator does not know is wrong too."""
        for word, said in schema.items():
            if word not in IGNORED:
                yield from getattr(self, f"_{word.strip('$')}")(value, said, schema, where)

    def _ref(self, value: Any, said: str, _: Json, where: str) -> Iterator[str]:
        yield from self.wrong(value, self.component(said.removeprefix("#/components/schemas/")), where)

    def _type(self, value: Any, said: str | list[str], _: Json, where: str) -> Iterator[str]:
        allowed = [said] if isinstance(said, str) else said
        if not any(
            isinstance(value, TYPES[each]) and (each == "boolean" or not isinstance(value, bool))
            for each in allowed
        ):
            yield f"{where} is {value!r}, not {said}"

    def _enum(self, value: Any, said: list[Any], _: Json, where: str) -> Iterator[str]:
        if value not in said:
            yield f"{where} is {value!r}, none of {said}"

    def _const(self, value: Any, said: Any, _: Json, where: str) -> Iterator[str]:
        if value != said:
            yield f"{where} is {value!r}, not {said!r}"

    def _not(self, value: Any, said: Json, _: Json, where: str) -> Iterator[str]:
        if not list(self.wrong(value, said, where)):
            yield f"{where} is {value!r}, like {said}"

    def _oneOf(self, value: Any, said: list[Json], _: Json, where: str) -> Iterator[str]:  # noqa: N802 — the word of JSON Schema
        if sum(not list(self.wrong(value, each, where)) for each in said) != 1:
            yield f"{where} is {value!r}, not one of {said}"

    def _properties(self, value: Any, said: Json, _: Json, where: str) -> Iterator[str]:
        for name, schema in said.items():
            if name in value:
                yield from self.wrong(value[name], schema, f"{where}.{name}")

    def _additionalProperties(self, value: Any, said: bool | Json, schema: Json, where: str) -> Iterator[str]:  # noqa: N802 — the same
        for name in value.keys() - schema.get("properties", {}).keys():
            if said is False:
                yield f"{where}.{name} is not known"
            elif isinstance(said, dict):
                yield from self.wrong(value[name], said, f"{where}.{name}")

    def _required(self, value: Any, said: list[str], _: Json, where: str) -> Iterator[str]:
        yield from (f"{where}.{name} is missing" for name in said if name not in value)

    def _items(self, value: Any, said: Json, _: Json, where: str) -> Iterator[str]:
        for index, each in enumerate(value):
            yield from self.wrong(each, said, f"{where}[{index}]")

    def _minimum(self, value: Any, said: float, _: Json, where: str) -> Iterator[str]:
        if isinstance(value, int | Decimal) and value < said:
            yield f"{where} is {value!r}, less than {said}"

    def _maximum(self, value: Any, said: float, _: Json, where: str) -> Iterator[str]:
        if isinstance(value, int | Decimal) and value > said:
            yield f"{where} is {value!r}, more than {said}"

    def _pattern(self, value: Any, said: str, _: Json, where: str) -> Iterator[str]:
        if isinstance(value, str) and not re.search(said, value):
            yield f"{where} is {value!r}, unlike {said}"

    def _minLength(self, value: Any, said: int, _: Json, where: str) -> Iterator[str]:  # noqa: N802 — the same
        if isinstance(value, str) and len(value) < said:
            yield f"{where} has {len(value)} characters, less than {said}"

    def _maxLength(self, value: Any, said: int, _: Json, where: str) -> Iterator[str]:  # noqa: N802 — the same
        if isinstance(value, str) and len(value) > said:
            yield f"{where} has {len(value)} characters, more than {said}"

    def _format(self, value: Any, said: str, _: Json, where: str) -> Iterator[str]:
        if said == "uuid" and str(UUID(value)) != value:
            yield f"{where} is {value!r}, no {said}"


async def documents(clinic: Clinic) -> list[Document]:
    """The appointment service's, and the financial service's."""
    return [
        Document((await client.get("/openapi.json")).json())
        for client in (clinic.appointments, clinic.charges)
    ]


async def test_the_validator_sees_what_is_wrong(clinic: Clinic) -> None:
    document, _ = await documents(clinic)
    good: Json = {
        "id": NOBODY,
        "start_date": "2020-12-01 13:00:00",
        "end_date": None,
        "physician_id": PHYSICIAN,
        "patient_id": PATIENT,
        "price": Decimal("200.00"),
    }
    schema = document.component("AppointmentResponse")
    assert list(document.wrong(good, schema, "it")) == []
    for changes in (
        {"price": "200.00"},
        {"price": Decimal(-1)},
        {"price": True},
        {"end_date": 5},
        {"start_date": None},
    ):
        assert len(list(document.wrong(good | changes, schema, "it"))) == 1, changes
    assert list(document.wrong({}, schema, "it"))
    assert list(
        document.wrong(
            {"x": 1} | dict.fromkeys(["physician_id", "patient_id"], NOBODY),
            document.component("NewAppointment"),
            "it",
        )
    )


async def test_every_answer_of_the_appointment_service_is_as_described(clinic: Clinic) -> None:
    described, _ = await documents(clinic)
    its_id = await clinic.start()
    await clinic.start()
    call = clinic.appointments
    statuses = set()
    for answer in [
        await call.post("/", json={"physician_id": PHYSICIAN, "patient_id": PATIENT}),
        await call.post("/", json={"physician_id": "x", "room": 1}),
        await call.post("/", content=b"{"),
        await call.post("/", content=b"{", headers={"Content-Type": "application/json"}),
        await call.post("/", content=b" " * 70_000, headers={"Content-Type": "application/json"}),
        *[
            await call.post("/", json={"physician_id": who, "patient_id": PATIENT}, headers=key)
            for who, key in product((PHYSICIAN, NOBODY), ({"Idempotency-Key": "k"}, {"Idempotency-Key": ""}))
        ],
        await call.get(f"/{its_id}/"),
        await call.post(f"/{its_id}/"),
        await call.get(f"/{its_id}/"),
        await call.get(f"/{NOBODY}/"),
        await call.post(f"/{NOBODY}/"),
        await call.get("/"),
        await call.get("/?limit=1"),
        await call.get("/?limit=0"),
        await call.get("/?after=x"),
        await call.get("/health/live"),
        await call.get("/health/ready"),
    ]:
        described.describes(answer)
        statuses.add(answer.status_code)
    assert statuses == {200, 201, 400, 404, 413, 415, 422}


async def test_every_answer_of_the_financial_service_is_as_described(clinic: Clinic) -> None:
    _, described = await documents(clinic)
    its_id = await clinic.start()
    await clinic.finish(its_id)
    call = clinic.charges
    for answer in [
        await clinic.charged(its_id),
        await call.get(f"/{its_id}/"),
        await call.get(f"/{NOBODY}/"),
        await call.get("/"),
        await call.get("/?limit=0"),
        await call.get("/?charged_from=x"),
        await call.get("/health/live"),
        await call.get("/health/ready"),
    ]:
        described.describes(answer)


async def test_every_answer_without_a_store_is_as_described(unreachable: Clinic) -> None:
    of_appointments, of_charges = await documents(unreachable)
    for described, call in ((of_appointments, unreachable.appointments), (of_charges, unreachable.charges)):
        for method, path, _ in described.operations():
            body = (
                {"physician_id": PHYSICIAN, "patient_id": PATIENT}
                if (method, path) == ("post", "/")
                else None
            )
            answer = await call.request(method, path.replace("{appointment_id}", NOBODY), json=body)
            described.describes(answer)
            assert answer.status_code == 503 or path == "/health/live", (method, path)


async def test_every_answer_about_dead_letters_is_as_described(operated: Clinic) -> None:
    _, described = await documents(operated)
    call, url = operated.charges, "/dead-letters"
    reason = {"reason": "a test"}
    unauthorized = [
        await call.get(f"{url}/"),
        await call.get(f"{url}/topic/0/0"),
        await call.post(f"{url}/replay/", json={}),
    ]
    call.headers["Authorization"] = f"Bearer {TOKEN}"
    answers = [
        *unauthorized,
        await call.get(f"{url}/"),
        await call.get(f"{url}/?limit=1&state=waiting"),
        await call.get(f"{url}/?state=lost"),
        await call.get(f"{url}/?after=x"),
        await call.get(f"{url}/groups/"),
        await call.get(f"{url}/topic/0/0"),
        await call.get(f"{url}/topic/0/9"),
        await call.post(f"{url}/replay/", json={"by": "anna", "all": True}),
        await call.post(f"{url}/replay/", json={"by": "anna", "position": "topic/0/9"}),
        await call.post(f"{url}/replay/", json={"by": "anna"}),
        await call.post(f"{url}/replay/", content=b"{}"),
        await call.post(
            f"{url}/replay/", content=b" " * 70_000, headers={"Content-Type": "application/json"}
        ),
        await call.post(f"{url}/discard/", json={"by": "anna", "position": "topic/0/0", **reason}),
        await call.post(f"{url}/discard/", json={"by": "anna", "all": True, **reason}),
        await call.post(f"{url}/discard/", json={"by": "anna", "all": True}),
        await call.get(f"{url}/topic/0/0"),
    ]
    for answer in answers:
        described.describes(answer)
    assert {answer.status_code for answer in answers} == {200, 400, 401, 404, 413, 415}


async def test_a_head_that_is_too_large_is_described_everywhere_as_it_is_answered(operated: Clinic) -> None:
    for described in await documents(operated):
        for method, path, operation in described.operations():
            announced = operation["responses"]["431"]["content"]
            assert list(announced) == ["text/plain; charset=utf-8"], (method, path)


async def test_operator_routes_are_documented_if_there_is_a_token_and_require_it(
    operated: Clinic,
) -> None:
    of_appointments, of_charges = await documents(operated)
    described = {(method, path): it for method, path, it in of_charges.operations() if "dead-letters" in path}
    assert set(described) == {
        ("get", "/dead-letters"),
        ("get", "/dead-letters/groups"),
        ("get", "/dead-letters/history"),
        ("get", "/dead-letters/{position}"),
        ("post", "/dead-letters/replay"),
        ("post", "/dead-letters/discard"),
    }
    ((name, scheme),) = of_charges.document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for operation in described.values():
        assert operation["security"] == [{name: []}]
        assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
    assert [
        it for _, path, it in of_charges.operations() if "dead-letters" not in path and "security" in it
    ] == []
    assert "dead-letters" not in str(of_appointments.document)


async def test_without_a_token_nothing_of_dead_letters_is_described(clinic: Clinic) -> None:
    _, of_charges = await documents(clinic)
    for word in ("dead-letters", "dead letters", "operator", "security", "bearer"):
        assert word not in str(of_charges.document).lower()


async def test_the_bodies_of_an_operator_are_described_as_strict_as_they_are(operated: Clinic) -> None:
    _, described = await documents(operated)
    for name, required in [("Replay", ["by"]), ("Discard", ["by", "reason"])]:
        body = described.component(name)
        assert (body["additionalProperties"], sorted(body["required"])) == (False, required)
        assert body["properties"]["by"]["minLength"] == 1
        assert list(described.wrong({"by": "", "all": "yes", "who": 1}, body, "it"))
        assert not list(
            described.wrong(
                {"by": "anna", "reason": "a test", "all": True}, body | {"additionalProperties": True}, "it"
            )
        )


@pytest.mark.parametrize(
    "chosen",
    [
        {"position": "a"},
        {"group": "a"},
        {"all": True},
        {"all": True, "group": None, "position": None},
        {"position": "a", "all": False},
        {},
        {"all": False},
        {"position": None},
        {"position": "a", "group": "b"},
        {"group": "a", "all": True},
        {"position": "a", "group": "b", "all": True},
    ],
    ids=repr,
)
async def test_what_an_operator_may_choose_is_described_as_it_is_taken(
    operated: Clinic, chosen: Json
) -> None:
    _, described = await documents(operated)
    operated.charges.headers["Authorization"] = f"Bearer {TOKEN}"
    body = {"by": "anna", **chosen}
    answer = await operated.charges.post("/dead-letters/replay/", json=body)
    is_described = not list(described.wrong(body, described.component("Replay"), "it"))
    assert (answer.status_code != 400) == is_described


async def test_the_nil_uuid_is_described_as_refused(clinic: Clinic) -> None:
    described, _ = await documents(clinic)
    for name in ("physician_id", "patient_id"):
        body = {"physician_id": PHYSICIAN, "patient_id": PATIENT} | {name: NIL}
        assert list(described.wrong(body, described.component("NewAppointment"), "it"))
        assert (await clinic.appointments.post("/", json=body)).status_code == 400


async def test_exactly_these_routes_are_described(clinic: Clinic) -> None:
    of_appointments, of_charges = await documents(clinic)
    health = {("get", "/health/live"), ("get", "/health/ready")}
    assert {(method, path) for method, path, _ in of_appointments.operations()} == health | {
        ("get", "/"),
        ("post", "/"),
        ("get", "/{appointment_id}"),
        ("post", "/{appointment_id}"),
        ("get", "/{appointment_id}/trace"),
    }
    assert {(method, path) for method, path, _ in of_charges.operations()} == health | {
        ("get", "/"),
        ("get", "/{appointment_id}"),
        ("get", "/{appointment_id}/trace"),
    }


async def test_exactly_the_parameters_of_the_contract_are_described(clinic: Clinic) -> None:
    of_appointments, of_charges = await documents(clinic)
    found = [
        {
            (method, path, each["in"], each["name"], each["required"])
            for method, path, it in described.operations()
            for each in it.get("parameters", [])
        }
        for described in (of_appointments, of_charges)
    ]
    one = "/{appointment_id}"
    traced = {("get", f"{one}/trace", "path", "appointment_id", True)}
    paging = {("get", "/", "query", name, False) for name in ("limit", "after", "physician_id", "patient_id")}
    assert found == [
        paging
        | traced
        | {("get", "/", "query", name, False) for name in ("finished", "started_before", "late")}
        | {("post", "/", "header", "Idempotency-Key", False)}
        | {("get", one, "path", "appointment_id", True), ("post", one, "path", "appointment_id", True)},
        paging
        | traced
        | {("get", "/", "query", "charged_from", False), ("get", "/", "query", "charged_to", False)}
        | {("get", one, "path", "appointment_id", True), ("get", one, "header", "Prefer", False)},
    ]


async def test_the_bounds_of_a_page_are_described(clinic: Clinic) -> None:
    for described in await documents(clinic):
        (limit,) = [
            each for each in described.document["paths"]["/"]["get"]["parameters"] if each["name"] == "limit"
        ]
        assert (limit["schema"]["minimum"], limit["schema"]["maximum"], limit["schema"]["default"]) == (
            1,
            100,
            20,
        )


async def test_the_body_of_a_new_appointment_is_described_as_strict_as_it_is(clinic: Clinic) -> None:
    described, _ = await documents(clinic)
    new = described.component("NewAppointment")
    assert new["additionalProperties"] is False
    assert sorted(new["required"]) == sorted(new["properties"]) == ["patient_id", "physician_id"]
    assert all(each["format"] == "uuid" for each in new["properties"].values())
    content = described.document["paths"]["/"]["post"]["requestBody"]["content"]
    assert list(content) == ["application/json"]
    assert described.document["paths"]["/"]["post"]["requestBody"]["required"] is True


async def test_money_is_a_number(clinic: Clinic) -> None:
    of_appointments, of_charges = await documents(clinic)
    for described, name, field in [
        (of_appointments, "AppointmentResponse", "price"),
        (of_charges, "ChargeResponse", "total_price"),
        (of_charges, "ChargeDetails", "total_price"),
        (of_charges, "ChargeDetails", "price"),
    ]:
        money = described.component(name)["properties"][field]
        assert (money["type"], money["minimum"]) == ("number", 0)
        assert money["examples"]


async def test_every_kind_of_thing_has_an_example_that_its_own_schema_allows(
    clinic: Clinic, operated: Clinic
) -> None:
    for described in [*await documents(clinic), *await documents(operated)]:
        with_examples = set()
        for name in described.document["components"]["schemas"]:
            for field, schema in described.component(name)["properties"].items():
                for example in schema.get("examples", []):
                    with_examples.add(name)
                    exact = Decimal(str(example)) if isinstance(example, float) else example
                    assert list(described.wrong(exact, schema, f"{name}.{field}")) == []
        assert {"Problem", "FieldProblem", "Health"} < with_examples
        assert with_examples & {"AppointmentResponse", "ChargeResponse"}


async def test_the_document_refers_only_to_itself(clinic: Clinic, operated: Clinic) -> None:
    for client in (clinic.appointments, clinic.charges, operated.charges):
        text = (await client.get("/openapi.json")).text
        assert "://" not in text
        described = Document((await client.get("/openapi.json/")).json())
        for name in re.findall(r'"\$ref":"([^"]*)"', text):
            assert described.component(name.removeprefix("#/components/schemas/"))


async def test_each_operation_has_a_name_of_its_own_and_a_sentence(clinic: Clinic, operated: Clinic) -> None:
    for described in [*await documents(clinic), *await documents(operated)]:
        operations = [operation for _, _, operation in described.operations()]
        assert len({operation["operationId"] for operation in operations}) == len(operations)
        assert all(operation["summary"] for operation in operations)
        assert re.fullmatch(r"3\.1\.\d", described.document["openapi"])


async def test_the_list_of_charges_says_from_when_on_a_window_is_complete(clinic: Clinic) -> None:
    found = (await clinic.charges.get("/openapi.json")).json()["paths"]["/"]["get"]["parameters"]
    (said,) = (each["description"] for each in found if each["name"] == "charged_to")
    assert "complete a minute after it, while /health/ready says ready" in said
    assert "until a minute after it is ready again" in said
