"""The words, dates and amounts of a page in the language of whoever reads it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel import Locale, dates, negotiate_locale, numbers
from babel.messages.pofile import read_po

from clinic.domain.money import Money

LANGUAGES: Final = {"en": "English", "pt_BR": "Português"}
"""What can be chosen. English is what the code is written in."""
CATALOGUES: Final = Path(__file__).parent / "languages"
MAX_LANGUAGES: Final = 20
"""Of an Accept-Language header: further ones are not read."""


class Reader:
    """One language, in the clinic's time zone and currency."""

    def __init__(self, language: str, zone: ZoneInfo, currency: str) -> None:
        self.language = language
        self._zone, self._currency = zone, currency
        self._locale, self._texts = Locale.parse(language), _catalogue(language)

    @property
    def zone(self) -> str:
        """The clinic's time zone, by its name."""
        return self._zone.key

    @property
    def tag(self) -> str:
        """As HTML wants it (BCP 47)."""
        return self.language.replace("_", "-")

    def text(self, message: str, **values: object) -> str:
        """This text of the code, in the reader's language, with `{name}` filled in."""
        found = self._texts.get(message) or message
        return found.format(**values) if values else found

    def money(self, amount: Money | None) -> str:
        if amount is None:
            return "—"
        return str(
            numbers.format_currency(str(amount), self._currency, locale=self._locale, currency_digits=False)
        )

    def moment(self, at: datetime | None) -> str:
        """Date and time; `at` is UTC, with or without its zone."""
        return (
            "—" if at is None else str(dates.format_datetime(self._local(at), "medium", locale=self._locale))
        )

    def time(self, at: datetime) -> str:
        return str(dates.format_time(self._local(at), "medium", locale=self._locale))

    def day(self, at: datetime) -> str:
        return str(dates.format_date(self._local(at), "full", locale=self._locale))

    def duration(self, seconds: float) -> str:
        """In the largest unit that says something: "2 hours", "3 seconds", "40 ms"."""
        if seconds < 1:
            return f"{seconds * 1000:.0f} ms"
        return str(dates.format_timedelta(timedelta(seconds=seconds), threshold=2, locale=self._locale))

    def number(self, number: float) -> str:
        return str(numbers.format_decimal(number, locale=self._locale))

    def _local(self, at: datetime) -> datetime:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(self._zone)


def negotiated(header: str) -> str:
    """The language that an Accept-Language header likes best (RFC 9110, 12.5.4)."""
    weighted = []
    for place, part in enumerate(header.split(",")[:MAX_LANGUAGES]):
        tag, quality = part.strip().partition(";q=")[::2]
        weighted.append((-_weight(quality), place, tag.partition("-")[0]))  # there is one of each language
    preferred = [each[-1] for each in sorted(weighted)]
    return negotiate_locale(preferred, LANGUAGES, aliases={"pt": "pt_BR"}) or "en"


def _weight(quality: str) -> float:
    try:
        return float(quality or 1)
    except ValueError:
        return 0.0


@cache
def _catalogue(language: str) -> Mapping[str, str]:
    file = CATALOGUES / f"{language}.po"
    if not file.exists():
        return {}
    with file.open("rb") as stream:
        return {str(each.id): str(each.string) for each in read_po(stream, locale=language) if each.id}


def marked(message: Any) -> Any:
    """A text that is looked up where it is shown: the catalogues find it by this name."""
    return message
