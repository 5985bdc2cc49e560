"""The console as a process."""

import secrets

import uvloop

from clinic.entrypoints.console.app import create_app
from clinic.entrypoints.console.client import Service, Services
from clinic.entrypoints.console.languages import marked
from clinic.entrypoints.console.view import maker
from clinic.entrypoints.service import Lifecycle, serve
from clinic.entrypoints.service import Service as Served
from clinic.entrypoints.settings import Settings, url
from clinic.entrypoints.telemetry import LoggingTelemetry


def run(settings: Settings) -> None:
    """Serve the pages until it is asked to end."""
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    telemetry = LoggingTelemetry("console")
    lifecycle = Lifecycle(telemetry)
    # Without a secret of the clinic's, whoever is signed in is not after a restart.
    secret = settings.console_secret.encode() or secrets.token_bytes(32)
    app = create_app(services(settings), maker(settings), secret, telemetry, lifecycle)
    await serve(
        Served(
            app,
            lifecycle,
            settings.console_host,
            settings.console_port,
            "CLINIC_CONSOLE",
            settings.keep_alive,
        )
    )


def services(settings: Settings) -> Services:
    """Where they are: as set, else where the settings put them on this machine."""
    return Services(
        Service(
            marked("appointment"),
            settings.appointment_url or url(settings.appointment_host, settings.appointment_port),
        ),
        Service(
            marked("financial"),
            settings.financial_url or url(settings.financial_host, settings.financial_port),
        ),
        Service(marked("audit"), settings.audit_url or url(settings.audit_host, settings.audit_port)),
    )
