"""Requests made from the two OpenAPI documents, and every answer held against them: see `make fuzz`."""
