"""Where settings come from: the variables of the environment, and below them the lines of a `.env` file."""

import os
import re
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

from clinic.domain.errors import Misconfigured

PREFIX: Final = "CLINIC_"


def environment(file: Path = Path(".env")) -> dict[str, str]:
    """The lines of this file, if there is one, and over them the variables of the environment.

    Values are taken literally: nothing in them is expanded. Raises `Misconfigured` for a line that cannot be
    read, sets a name without a value, sets it again, or stands within the quotes of another.
    """
    return _lines(file) | os.environ


def _lines(file: Path) -> dict[str, str]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} cannot be read: {error}") from error
    found = dict[str, str]()
    for binding in bindings:
        name = binding.key or ""
        is_ours = name.upper().startswith(PREFIX)
        if binding.error or (is_ours and binding.value is None):
            raise Misconfigured(f"{file}, line {_line(binding)} cannot be read: write NAME=value")
        if re.search(rf"\n\s*(export\s+)?{PREFIX}", binding.value or "", re.IGNORECASE):
            raise Misconfigured(
                f"{file}, line {_line(binding)} opens a quote that ends behind other settings"
            )
        if is_ours and name in found:
            raise Misconfigured(f"{file}, line {_line(binding)} sets {name} again: keep one of the lines")
        if name and binding.value is not None:
            found[name] = binding.value
    return found


def _line(binding: Binding) -> int:
    # The parser's line is where it began to read: before the empty lines that it skips.
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
