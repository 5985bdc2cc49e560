"""Lists as CSV (RFC 4180), streamed from the pages of the services: one page at a time is in memory."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream
from msgspec import Struct

from clinic.domain.errors import ClinicError
from clinic.domain.money import Money
from clinic.entrypoints.console.client import Page, Service, Services
from clinic.entrypoints.console.letters import ALL, InState, as_asked
from clinic.entrypoints.console.view import View
from clinic.entrypoints.dead_letter_schemas import DeadLetterResponse

MAX_ROWS: Final = 100_000
PAGE_SIZE: Final = 100
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""With these a text begins that a spreadsheet would take for a formula (OWASP, "CSV Injection")."""
T = TypeVar("T")


class ChargeLine(Struct, frozen=True):
    """A charge with what explains it. Times are UTC."""

    appointment_id: UUID
    total_price: Money
    price: Money
    hours: float
    pricing: str
    start_date: datetime
    end_date: datetime
    charged_at: datetime


@get("/charges.csv")
async def charges(
    services: NamedDependency[Services],
    physician_id: FromQuery[str] = "",
    patient_id: FromQuery[str] = "",
    charged_from: FromQuery[str] = "",
    charged_to: FromQuery[str] = "",
) -> Stream:
    """The newest first."""
    people = {"physician_id": physician_id, "patient_id": patient_id}
    query = {**people, "charged_from": charged_from, "charged_to": charged_to}
    return await _csv("charges", services.financial, ChargeLine, "/", query)


@get("/letters.csv")
async def letters(
    view: NamedDependency[View],
    services: NamedDependency[Services],
    in_state: InState = ALL,
    group: FromQuery[str] = "",
    about: FromQuery[str] = "",
) -> Stream:
    """By position."""
    query = as_asked({"state": in_state, "group": group, "about": about})
    return await _csv("letters", services.financial, DeadLetterResponse, "/dead-letters/", query, view.token)


async def _csv(
    name: str, service: Service, shape: type[Any], path: str, query: Mapping[str, str], token: str = ""
) -> Stream:
    """The first page is asked for before anything is sent: what fails then is said on a page."""

    async def page(after: str | None) -> Page[Any]:
        asked = {**query, "limit": PAGE_SIZE, "after": after}
        return await service.get(Page[shape], path, asked, token=token)  # type: ignore[valid-type]

    first = await page(None)

    async def lines() -> AsyncIterator[str]:
        yield _lines([shape.__struct_fields__])
        found, rows = first, 0
        while found.items:
            yield _lines(
                [_cell(getattr(each, name)) for name in shape.__struct_fields__] for each in found.items
            )
            rows += len(found.items)
            if found.next is None:
                return
            if rows >= MAX_ROWS:
                yield _lines([[f"There are more than {MAX_ROWS} rows: narrow the filter."]])
                return
            try:
                found = await page(found.next)
            except ClinicError as error:
                yield _lines([[f"Incomplete, the {service.name} service did not answer: {error}"]])
                return

    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Stream(lines, media_type="text/csv; charset=utf-8; header=present", headers=headers)


def _cell(value: object) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _lines(rows: Iterable[Iterable[str]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)  # lines end with CR LF, as the RFC says
    return written.getvalue()


ROUTES: Final = [charges, letters]
