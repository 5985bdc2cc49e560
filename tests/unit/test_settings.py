"""What can be set, and what a person is told who sets it wrong."""

import socket
from pathlib import Path

import pytest
from dotenv import dotenv_values
from msgspec.structs import fields

from clinic.domain.errors import Misconfigured
from clinic.domain.money import Money
from clinic.entrypoints import discovery
from clinic.entrypoints.cli.main import main
from clinic.entrypoints.environment import PREFIX, environment
from clinic.entrypoints.service import _bound
from clinic.entrypoints.settings import Settings, load, unknown, url, variables
from clinic.entrypoints.technologies.factories import NoSettings
from clinic.entrypoints.technologies.kafka import KafkaSettings
from clinic.entrypoints.technologies.mongo import MongoSettings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
REAL = {"CLINIC_STORE": "mongo", "CLINIC_TRANSPORT": "kafka"}


def test_with_no_variable_everything_is_as_the_contract_says() -> None:
    settings = load({})
    assert settings == Settings(
        store="sqlite",
        transport="sqlite",
        data_dir=Path("var"),
        hourly_price=Money("200.00"),
        pricing="hours-begun",
        lease=3.0,
        appointment_host="127.0.0.1",
        appointment_port=8000,
        financial_host="127.0.0.1",
        financial_port=8001,
        audit_host="127.0.0.1",
        audit_port=8011,
        audit_every="5m",
        operator_token="",
        consumer_group="financial",
        log_level="info",
        log_format="console",
        store_settings=NoSettings(),
        transport_settings=NoSettings(),
    )
    real = load(REAL)
    assert real.store_settings == MongoSettings(
        url="mongodb://127.0.0.1:27017", database="clinic", timeout=5.0
    )
    assert real.transport_settings == KafkaSettings(
        bootstrap_servers="127.0.0.1:9092",
        topic="clinic.appointments",
        partitions=6,
        replication=1,
        protocol="classic",
        options={},
    )


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("CLINIC_STORE", "memory", "memory"),
        ("CLINIC_STORE", "mongo", "mongo"),
        ("CLINIC_TRANSPORT", "memory", "memory"),
        ("CLINIC_TRANSPORT", "kafka", "kafka"),
        ("CLINIC_DATA_DIR", "/tmp/clinic", Path("/tmp/clinic")),  # noqa: S108 — nothing is written there
        ("CLINIC_HOURLY_PRICE", "99.9", Money("99.90")),
        ("CLINIC_HOURLY_PRICE", "0", Money("0.00")),
        ("CLINIC_PRICING", "whole-hours", "whole-hours"),
        ("CLINIC_PRICING", "pro-rata", "pro-rata"),
        ("CLINIC_LEASE", "0.5", 0.5),
        ("CLINIC_LEASE", "10", 10.0),
        ("CLINIC_APPOINTMENT_HOST", "::1", "::1"),
        ("CLINIC_APPOINTMENT_PORT", "65535", 65535),
        ("CLINIC_FINANCIAL_HOST", "localhost", "localhost"),
        ("CLINIC_FINANCIAL_PORT", "1", 1),
        ("CLINIC_OPERATOR_TOKEN", "0123456789abcdef", "0123456789abcdef"),
        ("CLINIC_MONGO_URL", "mongodb://a,b/?replicaSet=rs0", "mongodb://a,b/?replicaSet=rs0"),
        ("CLINIC_MONGO_DATABASE", "town", "town"),
        ("CLINIC_MONGO_TIMEOUT", "0.1", 0.1),
        ("CLINIC_KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:9092", "a:9092,b:9092"),
        ("CLINIC_KAFKA_TOPIC", "town.appointments", "town.appointments"),
        ("CLINIC_CONSUMER_GROUP", "audit", "audit"),
        ("CLINIC_KAFKA_PARTITIONS", "12", 12),
        ("CLINIC_KAFKA_REPLICATION", "3", 3),
        ("CLINIC_KAFKA_PROTOCOL", "consumer", "consumer"),
        ("CLINIC_KAFKA_OPTIONS", '{"security.protocol": "SSL"}', {"security.protocol": "SSL"}),
        ("CLINIC_LOG_LEVEL", "debug", "debug"),
        ("CLINIC_LOG_FORMAT", "json", "json"),
    ],
)
def test_each_variable_sets_its_field_and_no_other(variable: str, text: str, value: object) -> None:
    its = REAL if variable not in REAL else {}
    before = variables(load(its))
    after = variables(load(its | {variable: text, "PATH": "/bin", "CLINIC_UNKNOWN": "x"}))
    assert after[variable][1] == value
    changed = {name for name, (_, found) in after.items() if name not in before or before[name][1] != found}
    other = {name for name in changed if name.startswith(("CLINIC_MONGO_", "CLINIC_KAFKA_"))}
    assert changed - (other if variable in REAL else set()) == {variable}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CLINIC_STORE", "mongodb"),
        ("CLINIC_STORE", "SQLITE"),
        ("CLINIC_TRANSPORT", "pigeon"),
        ("CLINIC_HOURLY_PRICE", "free"),
        ("CLINIC_HOURLY_PRICE", "200,00"),
        ("CLINIC_HOURLY_PRICE", "-1"),
        ("CLINIC_HOURLY_PRICE", "0.001"),
        ("CLINIC_HOURLY_PRICE", "NaN"),
        ("CLINIC_HOURLY_PRICE", "Infinity"),
        ("CLINIC_HOURLY_PRICE", "1e400"),
        ("CLINIC_HOURLY_PRICE", "5e1"),
        ("CLINIC_HOURLY_PRICE", "1000000.01"),
        ("CLINIC_HOURLY_PRICE", "9999999999999.99"),
        ("CLINIC_HOURLY_PRICE", "2_00.00"),
        ("CLINIC_DATA_DIR", "~nobody-of-that-name/var"),
        ("CLINIC_PRICING", "free"),
        ("CLINIC_LEASE", "0"),
        ("CLINIC_LEASE", "-3"),
        ("CLINIC_LEASE", "soon"),
        ("CLINIC_LEASE", "nan"),
        ("CLINIC_LEASE", "inf"),
        ("CLINIC_APPOINTMENT_PORT", "0"),
        ("CLINIC_APPOINTMENT_PORT", "65536"),
        ("CLINIC_APPOINTMENT_PORT", "http"),
        ("CLINIC_FINANCIAL_PORT", "-1"),
        ("CLINIC_FINANCIAL_PORT", "80.5"),
        ("CLINIC_MONGO_TIMEOUT", "0"),
        ("CLINIC_MONGO_TIMEOUT", "61"),
        ("CLINIC_KAFKA_TOPIC", "appointments of 2026"),
        ("CLINIC_KAFKA_TOPIC", "town/appointments"),
        ("CLINIC_KAFKA_TOPIC", ".."),
        ("CLINIC_KAFKA_TOPIC", "t" * 250),
        ("CLINIC_KAFKA_PARTITIONS", "0"),
        ("CLINIC_KAFKA_PARTITIONS", "10001"),
        ("CLINIC_KAFKA_PARTITIONS", "99999999999"),
        ("CLINIC_KAFKA_REPLICATION", "32768"),
        ("CLINIC_KAFKA_REPLICATION", "-1"),
        ("CLINIC_KAFKA_PROTOCOL", "newest"),
        ("CLINIC_LOG_LEVEL", "loud"),
        ("CLINIC_LOG_FORMAT", "xml"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_readable_line_that_names_the_variable(
    variable: str, text: str
) -> None:
    with pytest.raises(Misconfigured) as raised:
        load(REAL | {variable: text})
    assert variable in str(raised.value)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "sasl.password=hunter2",
        '{"sasl.password": "hunter2", "sasl.password": "hunter3"}',
        '{"sasl.password": ["hunter2"]}',
        '{"sasl.password": "hunter2"',
        '["hunter2"]',
    ],
)
def test_options_that_cannot_be_used_are_not_repeated_since_they_may_hold_secrets(text: str) -> None:
    with pytest.raises(Misconfigured, match="CLINIC_KAFKA_OPTIONS") as raised:
        load(REAL | {"CLINIC_KAFKA_OPTIONS": text})
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_token_that_is_too_short_is_not_repeated() -> None:
    with pytest.raises(Misconfigured, match=r"CLINIC_OPERATOR_TOKEN.*16 characters") as raised:
        load({"CLINIC_OPERATOR_TOKEN": "hunter2-hunter2"})
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "choices"),
    [
        ("CLINIC_STORE", ["sqlite", "mongo", "memory"]),
        ("CLINIC_TRANSPORT", ["sqlite", "kafka", "memory"]),
        ("CLINIC_PRICING", ["hours-begun", "whole-hours", "pro-rata"]),
        ("CLINIC_KAFKA_PROTOCOL", ["classic", "consumer"]),
        ("CLINIC_LOG_LEVEL", ["debug", "info", "warning", "error"]),
        ("CLINIC_LOG_FORMAT", ["console", "json"]),
    ],
)
def test_a_wrong_choice_is_answered_with_all_of_them(variable: str, choices: list[str]) -> None:
    with pytest.raises(Misconfigured) as raised:
        load(REAL | {variable: "nonsense"})
    assert all(choice in str(raised.value) for choice in choices)


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(dict.fromkeys(variables(load(REAL)), "")) == load({})


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(AttributeError):
        load({}).store = "memory"  # type: ignore[misc]


def test_the_example_lists_exactly_all_variables_with_their_defaults() -> None:
    listed = {name: text or "" for name, text in dotenv_values(EXAMPLE).items()}
    assert list(listed) == list(variables(load(REAL)))
    for point in (each for kind in discovery.GROUPS for each in discovery.installed(kind)):
        if discovery.package(point) == "clinic":
            for field in fields(discovery.load(point).settings):
                assert discovery.prefix(point.name) + field.name.upper() in listed
    assert [name for name, text in listed.items() if not text] == [
        "CLINIC_CONSOLE_SECRET",
        "CLINIC_APPOINTMENT_URL",
        "CLINIC_FINANCIAL_URL",
        "CLINIC_AUDIT_URL",
        "CLINIC_OPERATOR_TOKEN",
    ]
    assert load(listed) == load({})
    assert load(listed | REAL) == load(REAL)


def test_the_example_says_of_every_variable_what_it_is() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for index, line in enumerate(lines):
        if line.startswith(PREFIX) and not lines[index - 1].startswith(PREFIX):
            assert lines[index - 1].startswith("# "), line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('CLINIC_HOURLY_PRICE="300.00\n', 1),
        ("# ours\n\n\nCLINIC_HOURLY_PRICE: 300.00\n", 4),
        ("CLINIC_STORE=sqlite\nCLINIC_HOURLY_PRICE 300.00\n", 2),
        ("CLINIC_STORE=sqlite\r\nCLINIC_HOURLY_PRICE\r\n", 2),
        ("CLINIC_HOURLY_PRICE:300.00\n", 1),
        ("CLINIC_HOURLY_PRICE='300.00' per hour\n", 1),
        ('X=1\nNOTE="ours\nCLINIC_HOURLY_PRICE=300.00\nY="\n', 2),
        ("CLINIC_LOG_LEVEL='info\n  export clinic_hourly_price = 300.00\nX='\n", 1),
        ("CLINIC_HOURLY_PRICE=300.00\nCLINIC_STORE=sqlite\nCLINIC_HOURLY_PRICE=200.00\n", 3),
    ],
)
def test_a_line_of_the_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / ".env"
    file.write_bytes(text.encode())
    with pytest.raises(Misconfigured, match=rf"\.env, line {line} "):
        environment(file)


def test_a_value_may_have_several_lines(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text('KEY="-----BEGIN\nMIIE CLINIC_X\n-----END"\nCLINIC_HOURLY_PRICE=300.00\n')
    assert str(load(environment(file)).hourly_price) == "300.00"


def test_the_file_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_HOURLY_PRICE", "99.00")
    monkeypatch.setenv("x", "expanded")
    file = tmp_path / ".env"
    file.write_text(
        "\ufeffCLINIC_MONGO_URL=mongodb://a:p${x}$x@b/  # the town's\n"
        "export CLINIC_STORE = 'mongo'\nCLINIC_HOURLY_PRICE=300.00\nexport PATH\n"
    )
    settings = load(environment(file))
    assert settings.store == "mongo"
    assert settings.store_settings == MongoSettings(url="mongodb://a:p${x}$x@b/")
    assert str(settings.hourly_price) == "99.00", "the environment wins"


def test_without_a_file_there_is_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_STORE", "mongo")
    assert environment(tmp_path / ".env")["CLINIC_STORE"] == "mongo"


@pytest.mark.parametrize("token", ["0123456789abcdef\n", " 0123456789abcdef\r\n"])
def test_a_secret_that_ends_with_a_line_break_is_the_secret(token: str) -> None:
    assert load({"CLINIC_OPERATOR_TOKEN": token}).operator_token == token.strip()


@pytest.mark.parametrize(
    "token", ["0123456789\nabcdef", "0123456789 abcdef", "J\xfcrgen's 16 secrets", "\udcff" * 16]
)
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(Misconfigured, match="CLINIC_OPERATOR_TOKEN") as refused:
        load({"CLINIC_OPERATOR_TOKEN": token})
    assert token not in str(refused.value)


@pytest.mark.parametrize("name", variables(Settings(store="mongo", transport="kafka")))
def test_bytes_that_are_no_utf_8_are_refused_by_name_and_not_repeated(name: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name} cannot be used: .*UTF-8") as refused:
        load({"CLINIC_STORE": "mongo", "CLINIC_TRANSPORT": "kafka", name: "\udcff16 bytes and more"})
    assert "16 bytes" not in str(refused.value)


def test_a_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert load({"CLINIC_DATA_DIR": "~/var"}).data_dir == Path("/home/anna/var")


def test_an_unknown_name_is_shown_with_the_setting_that_was_meant() -> None:
    names = {
        "clinic_hourly_price": "1",
        "CLINIC_HOURLYPRICE": "1",
        "CLINIC-LEASE": "1",
        "\u200bCLINIC_PRICING": "pro-rata",
        "CLINIC_X": "",
        "PATH": "",
        "CLINIC_TEST_A": "",
        "CLINC_HOURLY_PRICE": "1",
        "CLINICSTORE": "mongo",
        "MYCLINIC_STORES": "3",
    }
    assert unknown(names, Settings()) == [
        "CLINC_HOURLY_PRICE is not known here and has no effect: did you mean CLINIC_HOURLY_PRICE?",
        "CLINIC-LEASE is not known here and has no effect: did you mean CLINIC_LEASE?",
        "CLINICSTORE is not known here and has no effect: did you mean CLINIC_STORE?",
        "CLINIC_HOURLYPRICE is not known here and has no effect: did you mean CLINIC_HOURLY_PRICE?",
        "CLINIC_X is not known here and has no effect",
        "clinic_hourly_price is not known here and has no effect: did you mean CLINIC_HOURLY_PRICE?",
        "\u200bCLINIC_PRICING is not known here and has no effect: did you mean CLINIC_PRICING?",
    ]


def test_an_address_is_printed_as_clients_take_it() -> None:
    assert [url(host, 8000) for host in ("::1", "127.0.0.1", "localhost")] == [
        "http://[::1]:8000",
        "http://127.0.0.1:8000",
        "http://localhost:8000",
    ]


def test_an_address_in_use_is_named_as_clients_take_it() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=rf"http://\[::1\]:{port} cannot be used"):
            _bound("::1", port, "CLINIC_APPOINTMENT")


def test_what_is_wrong_is_one_line_that_steers_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLINIC_HOURLY_PRICE", "300\n.00\x1b[31m")
    assert main(["audit"]) == 1
    assert "CLINIC_HOURLY_PRICE=300\\n.00\\x1b[31m cannot be used" in capsys.readouterr().err
