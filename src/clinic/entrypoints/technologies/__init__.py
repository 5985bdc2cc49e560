"""The built-in technologies. Each is an entry point of `pyproject.toml`, as a stranger's would be."""
