"""What a service finds out about its servers when it starts: a topic that is weaker than it should be, or
another shard key.
"""

import re
from pathlib import Path
from uuid import uuid4

import bson
import pymongo
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]
from msgspec.structs import replace
from support.apps import settings
from support.proxy import proxied

from clinic.adapters.kafka.cluster import KafkaConfig
from clinic.adapters.kafka.publisher import KafkaPublisher
from clinic.domain.errors import Misconfigured
from clinic.entrypoints.containers import AppointmentContainer, FinancialContainer
from clinic.entrypoints.technologies.mongo import MongoSettings
from clinic.testing.builders import RecordedTelemetry

Document = dict[str, object]

LEASE = 3.0
AN_ANSWER = slice(21, None)
"""Where the document stands in an answer of MongoDB's protocol, behind the header, the flags and the kind of
its section.
"""


@pytest.fixture
def its(kafka: str) -> KafkaConfig:
    """A topic that is not there yet."""
    name = f"test-{uuid4().hex}"
    return KafkaConfig(
        servers=kafka, topic=name, group=name, partitions=3, replication=1, protocol="classic", options={}
    )


def make(its: KafkaConfig, topic: NewTopic) -> None:
    admin = AdminClient({"bootstrap.servers": its.servers})  # which must outlive its answer
    admin.create_topics([topic])[its.topic].result()


async def opened_and_closed(its: KafkaConfig) -> RecordedTelemetry:
    noticed = RecordedTelemetry()
    publisher = KafkaPublisher(its, LEASE, noticed)
    await publisher.open()
    await publisher.close()
    return noticed


async def test_a_missing_topic_is_made_with_its_partitions_and_keeps_everything_for_ever(
    its: KafkaConfig,
) -> None:
    assert await opened_and_closed(its) == []

    admin = AdminClient({"bootstrap.servers": its.servers})
    assert len(admin.list_topics(its.topic).topics[its.topic].partitions) == 3
    resource = ConfigResource(ConfigResource.Type.TOPIC, its.topic)
    found = admin.describe_configs([resource])[resource].result()
    assert (found["retention.ms"].value, found["retention.bytes"].value) == ("-1", "-1")
    assert await opened_and_closed(its) == []


async def test_a_topic_that_forgets_gets_a_warning_that_says_what_is_wanted(its: KafkaConfig) -> None:
    forgetful = NewTopic(its.topic, 3, 1, config={"retention.ms": "3600000"})
    make(its, forgetful)

    ((what, details),) = await opened_and_closed(its)

    assert what == "topic is weaker than asked for"
    assert details["topic"] == its.topic
    assert details["found"] == {"retention.ms": "3600000"}
    assert details["wanted"] == {"retention.ms": "-1"}


async def test_fewer_partitions_or_replicas_are_weaker_and_a_stronger_topic_is_not(
    its: KafkaConfig,
) -> None:
    compacted = NewTopic(
        its.topic,
        2,
        1,
        config={"cleanup.policy": "compact", "retention.ms": "-1", "min.insync.replicas": "3"},
    )
    make(its, compacted)
    stronger = NewTopic(f"{its.topic}-stronger", 3, 1, config={"retention.ms": "-1", "retention.bytes": "-1"})
    make(replace(its, topic=stronger.topic), stronger)

    ((_, details),) = await opened_and_closed(replace(its, replication=3))

    assert details["found"] == {"cleanup.policy": "compact", "partitions": "2", "replication": "1"}
    assert details["wanted"] == {"cleanup.policy": "delete", "partitions": "3", "replication": "3"}
    assert await opened_and_closed(replace(its, partitions=2, topic=stronger.topic)) == []


async def test_a_topic_that_cannot_be_made_stops_the_start_with_what_to_do(its: KafkaConfig) -> None:
    beyond_this_cluster = replace(its, replication=3)

    with pytest.raises(
        Misconfigured, match=r"make it with 3 partitions, replication 3 .*min\.insync\.replicas.*or allow"
    ) as refused:
        await opened_and_closed(beyond_this_cluster)

    assert its.topic in str(refused.value)


def as_a_router(answer: bytes) -> bytes:
    """What a sharded cluster's router says of itself."""
    said = bson.decode(answer[AN_ANSWER])
    if "isWritablePrimary" not in said:
        return answer
    edited = answer[4 : AN_ANSWER.start] + bson.encode({**said, "msg": "isdbgrid"})
    return (len(edited) + 4).to_bytes(4, "little") + edited


@pytest.mark.parametrize("key", [{"physician_id": 1}, {"_id": 1}])
@pytest.mark.parametrize(
    ("context", "collection"),
    [("appointment", "appointments"), ("appointment", "idempotency_keys"), ("financial", "charges")],
)
async def test_another_shard_key_stops_the_start_with_what_to_do(
    mongo_standalone: str, tmp_path: Path, context: str, collection: str, key: dict[str, object]
) -> None:
    name = f"test-{uuid4().hex}"
    found = f"{name}_{context}.{collection}"
    client: pymongo.MongoClient[Document]
    with pymongo.MongoClient(mongo_standalone) as client, proxied(mongo_standalone) as router:
        sharded: pymongo.collection.Collection[Document] = client["config"]["collections"]
        sharded.insert_one({"_id": found, "key": key})
        router.edit = as_a_router
        its = MongoSettings(url=router.url, database=name)
        chosen = replace(settings("memory", tmp_path), store="mongo", store_settings=its)
        container = AppointmentContainer if context == "appointment" else FinancialContainer
        database = container(settings=chosen).store().resource
        try:
            with pytest.raises(
                Misconfigured, match=rf"sh\.shardCollection\(\"{re.escape(found)}\", {{_id: \"hashed\"}}\)"
            ):
                await database.open()
            sharded.update_one({"_id": found}, {"$set": {"key": {"_id": "hashed"}}})
            await database.open()
        finally:
            await database.close()
            sharded.delete_one({"_id": found})
