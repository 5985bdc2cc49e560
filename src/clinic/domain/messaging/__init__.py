"""Events on their way: what travels, the ports that carry it, and the delivery policy, written once."""
