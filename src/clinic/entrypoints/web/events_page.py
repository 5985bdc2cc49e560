"""The page that shows a service's AsyncAPI document: HTML made by the server, without a script."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from clinic.entrypoints.web.events import Document, Events

STYLE: Final = """
:root {
  color-scheme: light dark;
  --ink: #1c2430; --dim: #586272; --line: #d5dae1; --box: #f4f6f8; --link: #0b57a4;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --dim: #a3adba; --line: #39414c; --box: #1f252d; --link: #7db7f5 }
  body { background: #14181d }
}
body { margin: 0; color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
p { margin: .5rem 0 }
a { color: var(--link) }
code, pre { font: .875rem/1.5 ui-monospace, monospace }
pre { background: var(--box); padding: .75rem; border-radius: .375rem; overflow: auto; overflow-wrap: normal }
dl { margin: 0; display: grid; grid-template-columns: 16rem 1fr }
dt, dd { margin: 0; padding: .375rem 0; border-top: 1px solid var(--line) }
dt:first-of-type, dt:first-of-type + dd { border-top: 0 }
dt { font-weight: 600; padding-right: 1.5rem }
small { color: var(--dim); font-size: .875rem; font-weight: 400 }
@media (max-width: 40rem) { dl { display: block } dd { border-top: 0; padding-top: 0 } }
"""
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
        f"<style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
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
