"""Traces for people who watch: spans of what happens, exported by OpenTelemetry over HTTP.

A room of its own: it is imported only where OpenTelemetry's variables ask for it (`tracing_of`), needs the
extra `clinic[otel]`, and nothing depends on it.
"""
