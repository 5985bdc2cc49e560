"""The `clinic` command."""
