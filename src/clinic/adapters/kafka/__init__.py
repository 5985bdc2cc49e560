"""A transport on Apache Kafka: synchronous clients, each with a thread that wakes the loop once a batch."""
