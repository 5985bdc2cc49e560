"""A transport on Apache Kafka."""
