"""Pictures of the console, made by a command: see `make pictures`."""
