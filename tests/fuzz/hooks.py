"""What schemathesis is told about the services (its variable SCHEMATHESIS_HOOKS names this file)."""

from http import HTTPStatus

import schemathesis
from schemathesis.core.failures import Failure

BEYOND_SCHEMAS = {"after", "late", "started_before"}
"""Which texts are cursors, and that a parameter wants another beside it, or none."""
REJECTED = "ST202"
"""What the document allows was answered with 4xx."""


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext, failure: Failure, __: object, response: schemathesis.Response
) -> bool:
    """Whether a failure counts: not if what was rejected cannot be said in a schema.

    A key that another request has used (422) is a matter of history.
    """
    if failure.code == REJECTED and response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        return False
    is_refused = failure.code == REJECTED and response.status_code == 400
    fields = {each["field"] for each in response.json().get("errors", ())} if is_refused else set()
    return not fields or not fields <= BEYOND_SCHEMAS
