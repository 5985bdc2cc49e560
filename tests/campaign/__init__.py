"""The campaign: real services under load, faults from a seeded plan, then a ledger of what was answered
and what is kept.

A failpoint is the side of a port's call. `launcher` puts wrappers around the ports through the containers;
`plan` says
what goes wrong, `nemesis` does it, `check` judges. See docs/decisions/0013 and `make prove`.
"""
