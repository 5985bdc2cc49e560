"""The page that shows a service's AsyncAPI document: HTML made by the server, without a script."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from clinic.entrypoints.web.events import Document, Events

LINKS: Final = (
    '<p><a href="/asyncapi.json">asyncapi.json</a> (AsyncAPI 3.1) · <a href="/docs">docs</a> · '
    '<a href="/redoc">redoc</a></p>'
)


def page(events: Events) -> str:
    """The whole page: what is written in the document, and nothing else."""
    document = events.document
    title = escape(document["info"]["title"])
    (operation,) = document["operations"].values()
    (channel,) = document["channels"].values()
    body = "\n".join([
        f"<h1>{title}</h1>",
        f"<p>{_text(operation['summary'])} {_text(operation['description'])}</p>",
        LINKS,
        "<h2>Where</h2>",
        _where(document, channel, operation),
        *(_message(document, message) for message in document["components"]["messages"].values()),
        *(
            f"<h2>{escape(name)}</h2>\n{_list((escape(rule), _text(text)) for rule, text in rules.items())}"
            for name, rules in events.rules.items()
        ),
    ])  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        '<link rel="icon" href="/docs/files/swagger-ui-dist/favicon-32x32.png">'
        '<link rel="stylesheet" href="/docs/files/events.css"></head>'
        f"\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _where(document: Document, channel: Document, operation: Document) -> str:
    address = f"<code>{escape(channel['address'])}</code>" if channel["address"] else "none"
    servers = [f"<code>{escape(server['host'])}</code>" for server in document.get("servers", {}).values()]
    rows = [("Channel", f"{address}<br>{_text(channel['description'])}")]
    rows += [("Servers", ", ".join(servers))] if servers else []
    rows += [("Key", "The appointment's id.")]
    groups = operation.get("bindings", {}).get("kafka", {}).get("groupId", {}).get("enum", ())
    rows += [("Consumer group", f"<code>{escape(group)}</code>") for group in groups]
    return _list(rows)


def _message(document: Document, message: Document) -> str:
    data = _resolved(document, message["payload"])
    (example,) = message["examples"]
    headers = "\n".join(f"{name}: {text}" for name, text in example["headers"].items())
    value = json.dumps(example["payload"], indent=2)
    return "\n".join([
        f"<h2>{escape(message['name'])}</h2>",
        f"<p>{escape(message['title'])}. {_text(message['summary'])}</p>",
        "<h3>Headers</h3>",
        _fields(document, message["headers"]),
        "<h3>Value</h3>",
        _fields(document, data),
        "<h3>Example</h3>",
        f'<pre tabindex="0">{escape(headers)}\n\n{escape(value)}</pre>',
    ])  # fmt: skip


def _fields(document: Document, schema: Document) -> str:
    return _list(
        (_name(name, said, name in schema["required"]), _text(said.get("description", "")))
        for name, said in ((name, _resolved(document, found)) for name, found in schema["properties"].items())
    )


def _name(name: str, said: Mapping[str, Any], is_required: bool) -> str:
    kind = said.get("const", said.get("format", said["type"]))
    optional = "" if is_required else ", optional"
    return f"<code>{escape(name)}</code><br><small>{escape(kind)}{optional}</small>"


def _resolved(document: Document, schema: Document) -> Document:
    reference = schema.get("$ref", "").rpartition("/")[2]
    found: Document = document["components"]["schemas"][reference] if reference else schema
    return found


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(["<dl>", *(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows), "</dl>"])


def _text(words: str) -> str:
    """Escaped, and code where it stands in backquotes."""
    parts = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
