"""One container a context: what fills each port, and each use case from its ports."""

import asyncio
import random
import time
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import uuid_utils.compat
from dependency_injector.containers import DeclarativeContainer
from dependency_injector.providers import Callable, Dependency, List, Object, Singleton
from msgspec.structs import replace

from clinic.domain import events
from clinic.domain.appointment.use_cases import (
    FindAppointment,
    FindFinishedEvent,
    FinishAppointment,
    ListAppointments,
    ListLateAppointments,
    RepublishFinished,
    StartAppointment,
    TraceAppointment,
)
from clinic.domain.financial.dead_letters import (
    DiscardDeadLetters,
    FindDeadLetter,
    GroupDeadLetters,
    ListDeadLetters,
    ListHistory,
    ReplayDeadLetters,
)
from clinic.domain.financial.pricing import POLICIES
from clinic.domain.financial.tracing import TraceCharge
from clinic.domain.financial.use_cases import ChargeAppointments, ListCharges, PreviewCharges
from clinic.domain.messaging.consumer import Consumer
from clinic.domain.messaging.ports import Clock, Monotonic, Sleep, Telemetry
from clinic.domain.messaging.relay import Relay
from clinic.domain.reconciliation.audit import AuditCharges
from clinic.domain.reconciliation.repair import RepairCharges
from clinic.entrypoints import discovery, traced
from clinic.entrypoints.at_hand import AtHand
from clinic.entrypoints.measured import (
    MeasuredCharging,
    MeasuredDeadLetters,
    MeasuredFindCharge,
    MeasuredOutbox,
    MeasuredPublisher,
    MeasuredSubscription,
)
from clinic.entrypoints.metrics import AppointmentMetrics, FinancialMetrics
from clinic.entrypoints.settings import Settings, store_settings, transport_settings
from clinic.entrypoints.technologies.factories import (
    AppointmentStore,
    Channel,
    FactoryContext,
    FinancialStore,
    NoSettings,
    PublisherEnd,
    SubscriptionEnd,
)
from clinic.entrypoints.telemetry import LoggingTelemetry
from clinic.entrypoints.traced import (
    TracedAppointments,
    TracedCharging,
    TracedDeadLetters,
    TracedPublisher,
    TracedSubscription,
)
from clinic.entrypoints.tracing import tracing_of


def now() -> datetime:
    """The time: aware, UTC, in whole milliseconds, as everything keeps it."""
    exact = datetime.now(UTC)
    return exact.replace(microsecond=exact.microsecond // 1000 * 1000)


def _context(
    settings: Settings,
    clock: Clock,
    sleep: Sleep,
    monotonic: Monotonic,
    telemetry: Telemetry,
    shared: dict[str, Any],
) -> FactoryContext[Any]:
    return FactoryContext(
        settings=NoSettings(),
        clock=clock,
        sleep=sleep,
        monotonic=monotonic,
        telemetry=telemetry,
        lease=settings.lease,
        group=settings.consumer_group,
        data_dir=settings.data_dir,
        shared=shared,
    )


def _appointment_store(settings: Settings, context: FactoryContext[Any]) -> AppointmentStore:
    its = replace(context, settings=store_settings(settings))
    return discovery.store(settings.store).appointment(its)


def _financial_store(settings: Settings, context: FactoryContext[Any]) -> FinancialStore:
    its = replace(context, settings=store_settings(settings))
    return discovery.store(settings.store).financial(its)


def _publisher_end(settings: Settings, context: FactoryContext[Any]) -> PublisherEnd:
    its = replace(context, settings=transport_settings(settings))
    return discovery.transport(settings.transport).publisher(its)


def _subscription_end(settings: Settings, context: FactoryContext[Any]) -> SubscriptionEnd:
    its = replace(context, settings=transport_settings(settings))
    return discovery.transport(settings.transport).subscription(its)


def _channel(settings: Settings, context: FactoryContext[Any]) -> Channel:
    its = replace(context, settings=transport_settings(settings))
    return discovery.transport(settings.transport).channel(its)


def _watched_folder(settings: Settings) -> Path | None:
    """The data folder, where a technology in use keeps files in it, so that its disk is watched."""
    chosen = (discovery.store(settings.store), discovery.transport(settings.transport))
    return settings.data_dir if any(its.in_data_dir for its in chosen) else None


class AppointmentContainer(DeclarativeContainer):
    """The appointment context."""

    settings = Dependency(instance_of=Settings)
    shared = Dependency(instance_of=dict, default=Singleton(dict))
    clock = Object(now)
    sleep = Object(asyncio.sleep)
    monotonic = Object(time.monotonic)
    jitter = Object(random.uniform)
    telemetry = Singleton(LoggingTelemetry, "appointment")
    metrics = Singleton(AppointmentMetrics, telemetry.provided.registry, clock)
    tracing = Singleton(tracing_of, "appointment", settings.provided.transport, telemetry)
    context = Singleton(_context, settings, clock, sleep, monotonic, telemetry, shared)

    store = Singleton(_appointment_store, settings, context)
    appointments = Callable(attrgetter("appointments"), store)
    outbox = Callable(attrgetter("outbox"), store)
    transport = Singleton(_publisher_end, settings, context)
    publisher = Callable(attrgetter("publisher"), transport)
    channel = Callable(_channel, settings, context)
    resources = List(store.provided.resource, transport.provided.resource)
    watched_folder = Callable(_watched_folder, settings)
    relay = Singleton(
        Relay,
        Singleton(MeasuredOutbox, outbox, metrics, clock, settings.provided.lease),
        Singleton(MeasuredPublisher, Singleton(TracedPublisher, publisher, tracing), metrics, monotonic),
        sleep,
        telemetry,
        monotonic,
        jitter,
    )

    traced_appointments = Singleton(TracedAppointments, appointments, tracing)
    at_hand = Singleton(AtHand, traced_appointments)
    start_appointment = Singleton(
        StartAppointment, at_hand, clock, Object(uuid_utils.compat.uuid7), settings.provided.hourly_price
    )
    finish_appointment = Singleton(FinishAppointment, at_hand, clock, telemetry)
    find_appointment = Singleton(FindAppointment, appointments)
    list_appointments = Singleton(ListAppointments, appointments)
    list_late_appointments = Singleton(ListLateAppointments, appointments, outbox, clock)
    find_finished_event = Singleton(FindFinishedEvent, appointments, outbox)
    republish_finished = Singleton(RepublishFinished, traced_appointments, outbox)
    trace_appointment = Singleton(TraceAppointment, appointments, outbox)


class FinancialContainer(DeclarativeContainer):
    """The financial context."""

    settings = Dependency(instance_of=Settings)
    shared = Dependency(instance_of=dict, default=Singleton(dict))
    clock = Object(now)
    sleep = Object(asyncio.sleep)
    monotonic = Object(time.monotonic)
    jitter = Object(random.uniform)
    telemetry = Singleton(LoggingTelemetry, "financial")
    metrics = Singleton(FinancialMetrics, telemetry.provided.registry, clock)
    tracing = Singleton(tracing_of, "financial", settings.provided.transport, telemetry)
    context = Singleton(_context, settings, clock, sleep, monotonic, telemetry, shared)

    store = Singleton(_financial_store, settings, context)
    charges = Callable(attrgetter("charges"), store)
    dead_letters = Callable(attrgetter("dead_letters"), store)
    transport = Singleton(_subscription_end, settings, context)
    subscription = Callable(attrgetter("subscription"), transport)
    channel = Callable(_channel, settings, context)
    lag = Callable(attrgetter("lag"), transport)
    resources = List(store.provided.resource, transport.provided.resource)
    watched_folder = Callable(_watched_folder, settings)

    policy = Callable(POLICIES.__getitem__, settings.provided.pricing)
    charge_appointments = Singleton(ChargeAppointments, charges, policy, clock, telemetry)
    measured_subscription = Singleton(
        MeasuredSubscription, Singleton(TracedSubscription, subscription, tracing), metrics, clock
    )
    measured_charging = Singleton(
        MeasuredCharging, charge_appointments, measured_subscription, metrics, clock, monotonic
    )
    consumer = Singleton(
        Consumer,
        measured_subscription,
        Object(events.from_message),
        Singleton(TracedCharging, measured_charging, tracing),
        Singleton(TracedDeadLetters, Singleton(MeasuredDeadLetters, dead_letters, metrics), tracing),
        sleep,
        telemetry,
        monotonic,
        jitter,
    )

    find_charge = Singleton(MeasuredFindCharge, charges, metrics)
    list_charges = Singleton(ListCharges, charges)
    list_dead_letters = Singleton(ListDeadLetters, dead_letters)
    group_dead_letters = Singleton(GroupDeadLetters, dead_letters)
    find_dead_letter = Singleton(FindDeadLetter, dead_letters)
    list_history = Singleton(ListHistory, dead_letters)
    replay_dead_letters = Singleton(
        ReplayDeadLetters,
        dead_letters,
        Object(traced.decode),
        Object(events.from_message),
        Singleton(TracedCharging, charge_appointments, tracing),
        Singleton(PreviewCharges, charges, policy, clock),
        clock,
        telemetry,
    )
    discard_dead_letters = Singleton(DiscardDeadLetters, dead_letters, clock, telemetry)
    audit_charges = Singleton(AuditCharges, charges, dead_letters, policy, clock)
    repair_charges = Singleton(RepairCharges, charges, dead_letters)
    trace_charge = Singleton(TraceCharge, charges, dead_letters)
