"""The memory stores and transport, for the containers."""

from typing import Any

from clinic.adapters.memory.appointments import MemoryAppointments
from clinic.adapters.memory.charges import MemoryCharges
from clinic.adapters.memory.dead_letters import MemoryDeadLetters
from clinic.adapters.memory.transport import MemoryLog, MemoryPublisher, MemorySubscription
from clinic.domain.messaging.ports import Resource
from clinic.entrypoints.technologies import factories
from clinic.entrypoints.technologies.factories import FactoryContext, NoSettings, Store, Transport

Context = FactoryContext[NoSettings]


class Nothing(Resource):
    """Memory needs no opening."""

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return


def memory_log(shared: dict[str, Any]) -> MemoryLog:
    """The log that both contexts of a process share."""
    log: MemoryLog = shared.setdefault("memory_log", MemoryLog())
    return log


def _appointment_store(context: Context) -> factories.AppointmentStore:
    store = MemoryAppointments(context.clock, context.lease, context.monotonic)
    return factories.AppointmentStore(Nothing(), appointments=store, outbox=store)


def _financial_store(_: Context) -> factories.FinancialStore:
    return factories.FinancialStore(Nothing(), MemoryCharges(), MemoryDeadLetters())


def _publisher(context: Context) -> factories.PublisherEnd:
    return factories.PublisherEnd(Nothing(), MemoryPublisher(memory_log(context.shared), context.clock))


def _subscription(context: Context) -> factories.SubscriptionEnd:
    log = memory_log(context.shared)
    return factories.SubscriptionEnd(Nothing(), MemorySubscription(log, context.group, context.clock))


def _channel(_: Context) -> factories.Channel:
    return factories.Channel(
        address=None,
        description="The memory of the one process that both services run in (`CLINIC_TRANSPORT=memory`). "
        "No other program can read it, and it ends with the process.",
    )


STORE = Store(
    settings=NoSettings, appointment=_appointment_store, financial=_financial_store, in_process=True
)
TRANSPORT = Transport(
    settings=NoSettings,
    publisher=_publisher,
    subscription=_subscription,
    channel=_channel,
    in_process=True,
)
