"""Suites without a subject: what every store and every transport must do, whoever writes it.

A subclass names its subject in about five lines (see tests/unit/test_memory_store.py) and inherits every
test:

    class TestMyCharges(ChargesContract):
        @asynccontextmanager
        async def opened(self, where: Path) -> AsyncIterator[Charges]:
            yield MyCharges(where / "charges")

What a subject cannot do it declares in a class attribute, where its readers see it.
"""

import pytest

MACHINES = ["machines", "outbox_model", "appointments_machine", "charges_machine", "transport_machine"]

pytest.register_assert_rewrite(
    *(f"contracts.{each}" for each in ["stores", "subject", "transports", *MACHINES])
)
