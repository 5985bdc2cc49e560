"""`python -m fuzz.journey APPOINTMENTS CHARGES`: start → finish → charge, as both documents describe it.

schemathesis chooses what is sent, and in which order; each answer is held against the documents. The event is
what no document of HTTP can link: that a finish leads to a charge is the one thing added here.
"""

import json
import sys
import urllib.request
from collections import Counter
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.generation.stateful.state_machine import APIStateMachine

import fuzz.hooks  # noqa: F401 — they register themselves

SCENARIOS: Final = 12
STEPS: Final = 8
CHARGE: Final = "/{charged_id}"
"""The path of a charge, apart from that of an appointment, which has the same form."""

Json = dict[str, Any]

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def documents(*urls: str) -> list[Json]:
    return [json.load(_direct.open(f"{url}/openapi.json")) for url in urls]


def one_of(appointments: Json, charges: Json) -> Json:
    """The operations of a journey in one document: of both documents, word for word, but for names."""
    renamed = json.dumps(charges).replace("#/components/schemas/", "#/components/schemas/Charges")
    charge = json.loads(renamed.replace('"appointment_id"', '"charged_id"', 1))["paths"]["/{appointment_id}"]
    for parameter in charge["get"]["parameters"]:
        if parameter["in"] == "path":
            parameter["name"] = "charged_id"
    charge["get"]["operationId"] = "Charge"
    paths = {path: appointments["paths"][path] for path in ("/", "/{appointment_id}")} | {CHARGE: charge}
    link = {"operationId": "Charge", "parameters": {"charged_id": "$response.body#/id"}}
    paths["/{appointment_id}"]["post"]["responses"]["200"]["links"] = {"Charge": link}
    schemas = appointments["components"]["schemas"] | {
        f"Charges{name}": schema for name, schema in json.loads(renamed)["components"]["schemas"].items()
    }
    return {**appointments, "paths": paths, "components": {"schemas": schemas}}


def machine(appointments: str, charges: str, seen: "Counter[str]") -> type[APIStateMachine]:
    """A machine of schemathesis over both services. `seen` counts answers, and finishes that were charged."""
    schema = schemathesis.openapi.from_dict(one_of(*documents(appointments, charges)))
    schema.config.generation.update(modes=[schemathesis.GenerationMode.POSITIVE])
    # It takes a physician's id for one that another operation makes, and would never start an appointment.
    schema.analysis.dependency_graph.operations.clear()
    finished: set[str] = set()

    class Journey(schema.as_state_machine()):  # type: ignore[misc]
        rule_order_seed = 1

        def get_call_kwargs(self, case: schemathesis.Case[Any]) -> Json:
            if case.operation.path == CHARGE and case.path_parameters.get("charged_id") in finished:
                case.headers["Prefer"] = "wait=10"
            return {"base_url": charges if case.operation.path == CHARGE else appointments}

        def after_call(self, response: schemathesis.Response, case: schemathesis.Case[Any]) -> None:
            super().after_call(response, case)
            name = f"{case.method} {case.operation.path}"
            seen[f"{name} {response.status_code}"] += 1
            if name == "POST /{appointment_id}" and response.status_code == 200:
                finished.add(response.json()["id"])
            if name == f"GET {CHARGE}" and case.path_parameters["charged_id"] in finished:
                assert response.status_code == 200, "a finished appointment has no charge"
                seen["charged"] += 1

    return Journey


def main(appointments: str, charges: str) -> None:
    """Print what was seen. Ends with a traceback where an answer is not as it is described."""
    seen = Counter[str]()
    journeys = settings(
        max_examples=SCENARIOS,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        machine(appointments, charges, seen).run(settings=journeys)
    finally:
        print(json.dumps(seen, sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
