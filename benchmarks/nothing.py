"""The limit of a request: routes that validate and answer as the appointment service does, and store nothing.

python -m benchmarks.nothing
"""

import os
from http import HTTPStatus
from uuid import UUID, uuid4

import uvloop
from litestar import Response, post
from litestar.params import FromPath, JSONBody

from clinic.domain.appointment.model import Appointment
from clinic.entrypoints.containers import AppointmentContainer, now
from clinic.entrypoints.service import Lifecycle, Service, serve
from clinic.entrypoints.settings import Settings, load
from clinic.entrypoints.telemetry import configure_logging
from clinic.entrypoints.web import appointment
from clinic.entrypoints.web.appointment import AppointmentResponse, NewAppointment
from clinic.entrypoints.web.problems import json_body


def service(settings: Settings) -> Service:
    """The appointment service, on its port, and beside its routes the same ones without a store."""
    container = AppointmentContainer(settings=settings)
    lifecycle = Lifecycle(container.telemetry())
    app = appointment.create_app(container, lifecycle)

    @post("/nothing", before_request=json_body(NewAppointment), status_code=HTTPStatus.CREATED)
    async def start(data: JSONBody[NewAppointment]) -> Response[AppointmentResponse]:
        started = _started(uuid4(), data.physician_id, data.patient_id)
        return Response(appointment._response(started), headers={"Location": f"/{started.id}/"})  # noqa: SLF001 — the same shape

    @post("/nothing/{appointment_id:uuid}/", status_code=HTTPStatus.OK)
    async def finish(appointment_id: FromPath[UUID]) -> AppointmentResponse:
        started = _started(appointment_id, appointment_id, appointment_id)
        return appointment._response(started.finish(now())[0])  # noqa: SLF001 — the same shape

    def _started(id_: UUID, physician_id: UUID, patient_id: UUID) -> Appointment:
        return Appointment.started(
            id=id_, physician_id=physician_id, patient_id=patient_id, price=settings.hourly_price, now=now()
        )

    app.register(start)
    app.register(finish)
    host, port = settings.appointment_host, settings.appointment_port
    return Service(app, lifecycle, host, port, "CLINIC_APPOINTMENT", settings.keep_alive)


async def main() -> None:
    """Serve until SIGTERM."""
    settings = load(os.environ)
    configure_logging(settings)
    await serve(service(settings))


if __name__ == "__main__":
    uvloop.run(main())
