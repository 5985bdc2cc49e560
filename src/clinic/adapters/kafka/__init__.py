"""A transport on Apache Kafka.

librdkafka's clients are synchronous: each has a thread of its own, and wakes the event loop once a batch.
"""
