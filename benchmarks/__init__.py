"""`make bench`: the services beside what a good team would build instead, on the same servers."""
