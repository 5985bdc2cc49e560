"""A message over a server whose headers are text: CloudEvents as over HTTP and NATS.

Names begin with `ce-`, values are percent-encoded. The key has a header of its own. A message without data
has no content type: such a server cannot tell it from one with no bytes.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from clinic.adapters import cloudevents
from clinic.domain.messaging.messages import Delivery, Message, Origin

KEY: Final = "clinic-key"


def text_headers(message: Message) -> dict[str, str]:
    """Its headers, in ASCII; the value beside them is its data, or nothing."""
    found = {name.replace("_", "-", 1): quote(text, ":/+") for name, text in cloudevents.headers(message)}
    if message.data is None:
        del found["content-type"]
    return found | {KEY: quote(message.key)}


def text_delivery(headers: Mapping[str, str], value: bytes, origin: Origin) -> Delivery:
    """What arrived, from any producer."""
    texts = {name.replace("ce-", "ce_", 1): unquote(text).encode() for name, text in headers.items()}
    key = texts.pop(KEY, None)
    content = value or (value if "content-type" in texts else None)
    return cloudevents.delivery(key, tuple(texts.items()), content, origin)
