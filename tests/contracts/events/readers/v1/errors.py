"""Every failure of the clinic, as one small tree. The branch decides what happens next.

ClinicError
├── Refused            the clinic says no; asking again will not help    → 4xx, dead letter
│   ├── NotFound
│   ├── Unreadable
│   └── Misconfigured  a person has to change the set-up                 → the start ends with one line
└── NotNow             the world says "not now"; asking again may help   → retry, redeliver
    ├── Conflict       somebody saved first: load, decide and save again
    └── Unavailable    for a write: the outcome is unknown, and repeating must be safe
"""


class ClinicError(Exception):
    """Every failure: the message is a sentence for a person."""


class Refused(ClinicError):
    """The clinic says no; asking again will not help."""


class NotFound(Refused):
    """There is no such thing."""


class Unreadable(Refused):
    """What was given cannot be read as what it should be."""


class Misconfigured(Refused):
    """The set-up cannot work as it is; the message says what to change."""


class NotNow(ClinicError):
    """The world says "not now"; asking again may help."""


class Conflict(NotNow):
    """Somebody saved first."""


class Unavailable(NotNow):
    """Something that is needed does not answer. For a write the outcome is unknown."""
