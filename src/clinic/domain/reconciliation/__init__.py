"""Both contexts side by side: whether each finished appointment has its charge, and how to mend it."""
