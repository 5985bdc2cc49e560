"""The standing audit: round after round, finished appointments beside their charges; the findings over HTTP.

A room of its own: `clinic audit --every` imports it, and nothing else does. Without this folder both services
run as they do with it.
"""
