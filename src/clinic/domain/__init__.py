"""The hexagon: the clinic's rules and the delivery policy. Standard library and msgspec, nothing else."""
