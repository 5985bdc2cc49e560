"""Who did what with dead letters, when, and what came of it or why."""

from typing import Final

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Template

from clinic.entrypoints.console.client import Page, Services
from clinic.entrypoints.console.letters import BECAME, PAGE_SIZE, STATES
from clinic.entrypoints.console.view import View
from clinic.entrypoints.dead_letter_schemas import RecordedEntryResponse


@get("/history/")
async def history(
    view: NamedDependency[View], services: NamedDependency[Services], after: FromQuery[str] = ""
) -> Template:
    """The newest first, a page at a time."""
    query = {"after": after, "limit": PAGE_SIZE}
    shape = Page[RecordedEntryResponse]
    entries = await services.financial.get(shape, "/dead-letters/history/", query, token=view.token)
    return view.page("history", entries=entries, events=BECAME | STATES, after=after)


ROUTES: Final = [history]
