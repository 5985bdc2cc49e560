"""The published schema of what a command writes for machines."""

from typing import Any

import msgspec

from clinic.domain.money import Money


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of what `as_json` writes."""
    return msgspec.json.schema(kind, schema_hook=_amount_schema)


def _amount_schema(kind: type) -> dict[str, Any]:
    if kind is Money:
        return {"type": "number", "minimum": 0, "description": "An exact amount with two decimals."}
    raise NotImplementedError(kind)
