"""Which options of Kafka's client an operator may set: all but those that a promise rests on."""

import ctypes
import re
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from clinic.adapters.kafka.cluster import NOT_OPTIONS, KafkaConfig
from clinic.domain.errors import Misconfigured

ALLOWED = {
    "batch.num.messages": "1000",
    "broker.address.family": "v4",
    "check.crcs": "true",
    "client.id": "front desk",
    "client.rack": "a",
    "compression.type": "gzip",
    "connections.max.idle.ms": "60000",
    "enable.metrics.push": "false",
    "enable.partition.eof": "true",
    "fetch.max.bytes": "1000000",
    "fetch.wait.max.ms": "100",
    "heartbeat.interval.ms": "1000",
    "linger.ms": "1",
    "max.in.flight": "1",
    "max.poll.interval.ms": "60000",
    "message.max.bytes": "2000000",
    "metadata.max.age.ms": "10000",
    "queued.min.messages": "100",
    "reconnect.backoff.max.ms": "1000",
    "request.timeout.ms": "1000",
    "sasl.mechanism": "PLAIN",
    "sasl.password": "hunter2",
    "sasl.username": "clinic",
    "security.protocol": "PLAINTEXT",
    "session.timeout.ms": "10000",
    "socket.keepalive.enable": "true",
    "socket.timeout.ms": "4000",
    "statistics.interval.ms": "0",
}

THEIR_CHOICE = Path(__file__).with_name("files") / "kafka_options.txt"


def known_to_librdkafka(listed: Path) -> set[str]:
    """The names of all its options, aliases among them, as the library that the client brings lists them."""
    (library,) = Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka*")
    libc = ctypes.CDLL(None)
    libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    show = ctypes.CDLL(str(library)).rd_kafka_conf_properties_show
    show.argtypes = [ctypes.c_void_p]
    file = libc.fopen(str(listed).encode(), b"w")
    show(file)
    libc.fclose(file)
    return set(re.findall(r"^([a-z][\w.]*) +\|", listed.read_text(), re.MULTILINE))


def test_of_every_option_of_librdkafka_somebody_has_decided_whose_choice_it_is(tmp_path: Path) -> None:
    """A new one goes into reserved_options.txt if a promise rests on it, otherwise into the file here."""
    known = known_to_librdkafka(tmp_path / "options")
    assert len(known) > 150
    assert known - NOT_OPTIONS == set(THEIR_CHOICE.read_text().split())


def configured(options: dict[str, str]) -> KafkaConfig:
    return KafkaConfig(
        servers="127.0.0.1:9",
        topic="t",
        group="g",
        partitions=1,
        replication=1,
        protocol="classic",
        options=options,
    )


@pytest.mark.parametrize("kind", [AdminClient, Producer, Consumer])
@pytest.mark.parametrize("name", sorted(NOT_OPTIONS))
def test_an_option_that_a_promise_rests_on_is_refused_by_name(name: str, kind: type) -> None:
    with pytest.raises(Misconfigured, match="rests on it") as refused:
        configured({"client.rack": "a", name: "hunter2"}).client(kind, {})
    assert f"cannot set {name}:" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ALLOWED)
def test_any_other_option_reaches_the_client(name: str) -> None:
    configured({name: ALLOWED[name]}).client(Producer, {})
    configured({name: ALLOWED[name]}).client(Consumer, {}, group_id="g")


def test_the_client_writes_nothing_to_stderr_from_its_own_threads(
    capfd: pytest.CaptureFixture[str],
) -> None:
    chatty = configured({"debug": "all", "log_level": "7"})
    producer = chatty.client(Producer, {})
    producer.produce("t", b"value")
    producer.flush(0.5)
    assert capfd.readouterr().err == ""
