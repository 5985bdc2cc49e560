"""Real processes, real MongoDB and Kafka; whole journeys."""
