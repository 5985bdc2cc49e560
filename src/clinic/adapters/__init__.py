"""One file, one technology filling one kind of port; beside them, what adapters share."""
