"""`python -m contracts.openapi`: see `make openapi`."""

from contracts.openapi import rewrite

rewrite()
