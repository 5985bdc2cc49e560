"""Of the first `messaging`, what its reader needs."""

from datetime import datetime

from msgspec import Struct


class Message(Struct, frozen=True, kw_only=True):
    """A fact as it travels: the attributes of CloudEvents 1.0, the key that keeps its order, its data.

    What a stranger wrote may lack any of them: then `type` is empty, `time` or `data` None.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime | None
    key: str
    data: bytes | None
