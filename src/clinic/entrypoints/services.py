"""Each service, made from its container: one place that says what runs where."""

import gc

from clinic.entrypoints import discovery
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.service import Lifecycle, Service, serve
from clinic.entrypoints.settings import Settings
from clinic.entrypoints.web import appointment, financial

YOUNG_OBJECTS = 10_000
"""New objects between two collections: a batch has thousands, and few of them are in a cycle."""


async def serve_appointment(settings: Settings) -> None:
    """Run the appointment service until it is asked to end."""
    await _serve(appointment_service(AppointmentContainer(settings=settings)))


async def serve_financial(settings: Settings) -> None:
    """Run the financial service until it is asked to end."""
    await _serve(financial_service(FinancialContainer(settings=settings)))


async def serve_both(settings: Settings) -> None:
    """Run both in this process until they are asked to end, or one ends by itself."""
    appointments = AppointmentContainer(settings=settings)
    charges = FinancialContainer(settings=settings, shared=appointments.shared)
    await _serve(appointment_service(appointments), financial_service(charges))


async def _serve(*services: Service) -> None:
    # What a service is made of stays until its end: no collection in the middle of requests has to look
    # through it again.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    await serve(*services)


def appointment_service(container: AppointmentContainer) -> Service:
    """The appointment service, on its port."""
    settings, telemetry = container.settings(), container.telemetry()
    if publishes_alone(settings):
        telemetry("one instance only", store=settings.store, transport=settings.transport)
    lifecycle = Lifecycle(telemetry)
    app = appointment.create_app(container, lifecycle)
    host, port = settings.appointment_host, settings.appointment_port
    return Service(app, lifecycle, host, port, "CLINIC_APPOINTMENT", settings.keep_alive)


def financial_service(container: FinancialContainer) -> Service:
    """The financial service, on its port."""
    settings, telemetry = container.settings(), container.telemetry()
    if serves_alone(settings):
        telemetry("one instance only", store=settings.store, transport=settings.transport)
    lifecycle = Lifecycle(telemetry)
    app = financial.create_app(container, lifecycle)
    host, port = settings.financial_host, settings.financial_port
    return Service(app, lifecycle, host, port, "CLINIC_FINANCIAL", settings.keep_alive)


def publishes_alone(settings: Settings) -> bool:
    """Whether a second appointment instance would publish where nobody reads, and nothing would refuse it."""
    store, transport = discovery.store(settings.store), discovery.transport(settings.transport)
    return transport.in_data_dir and not store.in_data_dir


def serves_alone(settings: Settings) -> bool:
    """Whether a second financial instance would keep charges of its own, and nothing would refuse it."""
    store, transport = discovery.store(settings.store), discovery.transport(settings.transport)
    return (store.in_data_dir or store.in_process) and not (transport.one_member or transport.in_process)
