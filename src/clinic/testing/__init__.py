"""The kit for whoever writes a store or a transport: what each must do, as suites without a subject.

A subclass names its subject in about five lines and inherits every test (see docs/plugins.md):

    class TestPigeons(TransportContract):
        transport = TRANSPORT

        def settings(self, where: Path) -> PigeonSettings:
            return PigeonSettings(loft=where.name)

What a subject cannot do it declares in a class attribute, where its readers see it. Put
`pytest_plugins = ["clinic.testing"]` into conftest.py, so that a failing assertion shows its values.
Needs the extra `clinic[testing]`; nothing of the services imports it.

PYTEST_DONT_REWRITE this module: it has no assertions, and a conftest.py may import it first.
"""

import pytest

SUITES = ["appointments", "charges", "dead_letters", "outbox", "subject", "transports"]
MACHINES = ["machines", "outbox_model", *(f"{each}_machine" for each in SUITES[:3]), "transport_machine"]

pytest.register_assert_rewrite(*(f"{__name__}.{each}" for each in [*SUITES, *MACHINES]))
