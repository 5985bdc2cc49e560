"""Pages in a browser for the desk and for whoever is on call: a client of the services' HTTP API, no store.

A room of its own: `clinic run console` imports it, and nothing else does. Without this folder both services
run as they do with it.
"""
