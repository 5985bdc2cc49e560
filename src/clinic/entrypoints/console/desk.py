"""The desk: who is in the room, start and finish an appointment, and its charge beside it."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID, uuid4

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect, Template
from msgspec import Struct
from msgspec.structs import replace

from clinic.domain.errors import NotFound, NotNow, Refused
from clinic.entrypoints.console.client import Away, Declined, Page, Service, Services, or_away
from clinic.entrypoints.console.shapes import Appointment, Charge
from clinic.entrypoints.console.view import View

IN_ROOM: Final = 100
"""Open appointments that the desk shows: the services' largest page."""
PAGE_SIZE: Final = 20
LAST_USED: Final = 10
"""Ids of each kind that the form offers."""
CHARGES_TIMEOUT: Final = 1.5
"""Seconds that the desk waits for charges: the front desk starts and finishes without them."""
LOOKS: Final = 12
"""How often a row asks for its charge, less and less often: some 40 s in all. Then it says where to look."""
ALL: Final = "all"
"""As a state of the list: who is in the room is above it, and where nothing is chosen not in it again."""
Form = Mapping[str, str]


class Said(Struct, frozen=True):
    """What came of the form that starts an appointment: refused, or of an outcome that is not known."""

    started: str = ""
    problem: str = ""
    unknown: str = ""
    physician_id: str = ""
    patient_id: str = ""
    key: str = ""


class Row(Struct, frozen=True):
    """An appointment and its charge; None while there is none, and where it cannot be asked."""

    appointment: Appointment
    charge: Charge | None = None
    looks: int = 0

    @property
    def pause(self) -> int | None:
        """Milliseconds until it asks for its charge again; None where it does not."""
        if self.charge or self.appointment.end_date is None or self.looks >= LOOKS:
            return None
        return int(min(100 * 2**self.looks, 5000))


NOTHING: Final = Said()
NO_FILTERS: Final[Form] = {"physician_id": "", "patient_id": "", "finished": "true"}


@get("/")
async def desk(
    view: NamedDependency[View],
    services: NamedDependency[Services],
    physician_id: FromQuery[str] = "",
    patient_id: FromQuery[str] = "",
    finished: FromQuery[str] = "true",
    after: FromQuery[str] = "",
    started: FromQuery[str] = "",
) -> Template:
    """Who is in the room, and the list with its filters; in the address is all that it shows."""
    filters = {"physician_id": physician_id, "patient_id": patient_id, "finished": finished}
    try:
        return await _desk(view, services, filters, after, said=Said(started=started[:36]))
    except Declined as error:
        return await _desk(view, services, NO_FILTERS, status=422, said=Said(problem=str(error)))


async def _desk(
    view: View, services: Services, filters: Form, after: str = "", status: int = 200, said: Said = NOTHING
) -> Template:
    shape, away = Page[Appointment], list[Away]()
    asked = {**filters, "finished": filters["finished"].replace(ALL, ""), "after": after, "limit": PAGE_SIZE}
    open_ones, listed = await asyncio.gather(
        or_away(away, services.appointment.get(shape, "/", {"finished": "false", "limit": IN_ROOM})),
        or_away(away, services.appointment.get(shape, "/", asked)),
    )
    rows = await _with_charges(away, services.financial, listed.items if listed else [])
    used = [row.appointment for row in rows] + (open_ones.items if open_ones else [])
    return view.page(
        "desk",
        status=status,
        open=open_ones,
        rows=rows if listed else None,
        next=listed.next if listed else None,
        filters=filters,
        after=after,
        away=away,
        # What failed in between is sent again under its own key; what was refused gets a new one.
        key=said.key if said.unknown else uuid4(),
        physicians=_last_used(each.physician_id for each in used),
        patients=_last_used(each.patient_id for each in used),
        said=said,
    )


@post("/appointments/")
async def start(view: NamedDependency[View], services: NamedDependency[Services]) -> Template | Redirect:
    """Start one. The form has its own key: a second click, or Back and again, starts nothing more."""
    form = await view.form()
    given = Said(**{name: form.get(name, "") for name in ("physician_id", "patient_id", "key")})
    ids = {"physician_id": given.physician_id, "patient_id": given.patient_id}
    try:
        started = await services.appointment.post(Appointment, "/", ids, key=given.key)
    except Refused as error:
        return await _desk(view, services, NO_FILTERS, status=422, said=replace(given, problem=str(error)))
    except NotNow as error:
        return await _desk(view, services, NO_FILTERS, status=503, said=replace(given, unknown=str(error)))
    return view.back("/", started=started.id)


@get("/appointments/{appointment_id:uuid}/finish")
async def confirm(
    view: NamedDependency[View], services: NamedDependency[Services], appointment_id: FromPath[UUID]
) -> Template | Redirect:
    """The one question before a finish."""
    appointment = await services.appointment.get(Appointment, f"/{appointment_id}/")
    if appointment.end_date is None:
        return view.page("confirm", row=Row(appointment), unknown=None)
    return (
        view.page("row", row=Row(appointment), away=())
        if view.is_part
        else view.back(f"/appointments/{appointment_id}")
    )


@post("/appointments/{appointment_id:uuid}/finish")
async def finish(
    view: NamedDependency[View], services: NamedDependency[Services], appointment_id: FromPath[UUID]
) -> Template | Redirect:
    """Finish it. Where the outcome is unknown, the page says so and offers to finish again, which is safe."""
    try:
        finished = await services.appointment.post(Appointment, f"/{appointment_id}/")
    except NotNow as error:
        return view.page("confirm", status=503, row=None, appointment_id=appointment_id, unknown=str(error))
    if view.is_part:
        return view.page("row", row=Row(finished), away=())
    return view.back(f"/appointments/{appointment_id}")


@get("/appointments/{appointment_id:uuid}/row")
async def row(
    view: NamedDependency[View],
    services: NamedDependency[Services],
    appointment_id: FromPath[UUID],
    looks: FromQuery[int] = 0,
) -> Template:
    """One row of the list, with its charge once that is there."""
    appointment = await services.appointment.get(Appointment, f"/{appointment_id}/")
    away: list[Away] = []
    charge = await _charge(away, services.financial, appointment)
    return view.page("row", row=Row(appointment, charge, looks + 1), away=away)


async def _with_charges(away: list[Away], financial: Service, listed: Sequence[Appointment]) -> list[Row]:
    charges = await asyncio.gather(*(_charge(away, financial, each) for each in listed))
    return [Row(*each) for each in zip(listed, charges, strict=True)]


async def _charge(away: list[Away], financial: Service, appointment: Appointment) -> Charge | None:
    if appointment.end_date is None:
        return None
    try:
        async with asyncio.timeout(CHARGES_TIMEOUT):
            return await or_away(away, financial.get(Charge, f"/{appointment.id}/"))
    except NotFound:
        return None
    except TimeoutError:
        return await or_away(away, _silent(financial))


async def _silent(service: Service) -> None:
    raise Away(service.name, f"no answer within {CHARGES_TIMEOUT:g} s")


def _last_used(ids: Iterable[UUID]) -> list[UUID]:
    return list(dict.fromkeys(ids))[:LAST_USED]


ROUTES: Final = [desk, start, confirm, finish, row]
