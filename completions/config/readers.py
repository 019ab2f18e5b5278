"""Values of a file to values of a row. Each raises Refused with what was expected, never with a secret."""

import difflib
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from completions.config.loader import Exact
from completions.config.substitution import Refused, Substituted
from completions.errors import InvalidRequestError
from completions.keys import parse
from providers.types import CacheMode

SHOWN_CHARACTERS = 60


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: Any) -> str:
    """A value inside a message, cut short; a substituted one as the file writes it."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    written = (
        value.text if isinstance(value, Exact) else repr(value) if isinstance(value, str) else str(value)
    )
    return written if len(written) <= SHOWN_CHARACTERS else f"{written[:SHOWN_CHARACTERS]}…"


def _plain(value: Any) -> Any:
    """Numbers and switches from a variable come as text; they mean what they would in the file."""
    if not isinstance(value, Substituted):
        return value
    try:
        return yaml.safe_load(str(value))
    except yaml.YAMLError:
        return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, int | float | date) else ""
        raise Refused(f"expected text, got {shown(value)}{hint}")
    return str(value)


def optional_text(value: Any) -> str:
    return "" if value is None else text(value)


def secret_text(value: Any) -> str:
    """Text whose value no message may hold."""
    if value is not None and not isinstance(value, str):
        raise Refused("expected text; put it in quotes")
    return str(value or "")


def key_secret(value: Any) -> str:
    try:
        parse(str(value) if isinstance(value, str) else "")
    except InvalidRequestError:
        raise Refused(
            "not in a key's format, sk-llmhub-<12 letters or digits>-<43 characters of A-Z a-z 0-9 _ ->. "
            "Leave `secret` out to have a key made and printed once"
        ) from None
    return str(value)


def flag(value: Any) -> bool:
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise Refused(f"expected true or false, got {shown(value)}")
    return plain


def whole(value: Any) -> int:
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int) or plain < 0:
        raise Refused(f"expected a whole number from 0 on, got {shown(value)}")
    return plain


def tokens(value: Any) -> int | None:
    if value is None:
        return None
    if (count := whole(value)) < 1:
        raise Refused("expected a number of tokens from 1 on, got 0")
    return count


def optional_whole(value: Any) -> int | None:
    if value is None:
        return None
    if (count := whole(value)) < 1:
        raise Refused("expected a whole number from 1 on, or nothing, got 0")
    return count


def similarity(value: Any) -> float | None:
    plain = _plain(value)
    if plain is None:
        return None
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not 0.5 <= plain <= 1:
        raise Refused(f"expected a number from 0.5 to 1, or nothing, got {shown(value)}")
    return float(plain)


def cache_mode(value: Any) -> str:
    """YAML reads the bare words on and off as true and false."""
    plain = _plain(value)
    if isinstance(plain, bool):
        return str(CacheMode.ON if plain else CacheMode.OFF)
    return one_of(lambda: [mode for mode in CacheMode if mode])(value)


def limit(value: Any) -> int | None:
    if value is None:
        return None
    if (count := whole(value)) < 1:
        raise Refused(
            "expected a whole number from 1 on, or nothing for no limit, got 0; to stop a key, revoke it"
        )
    return count


def percentages(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise Refused(f"expected a list of percentages, e.g. [50, 80, 100], got {shown(value)}")
    marks = [whole(item) for item in value]
    if sorted(set(marks)) != marks or not all(1 <= mark <= 1000 for mark in marks):
        raise Refused("expected percentages from 1 to 1000 in rising order, e.g. [50, 80, 100]")
    return marks


def seconds(value: Any) -> float:
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise Refused(f"expected a number of seconds, got {shown(value)}")
    return float(plain)


def dollars(value: Any) -> Decimal:
    return _decimal(value, "US dollars per million tokens, e.g. 2.50")


def amount(value: Any) -> Decimal:
    return _decimal(value, "US dollars, e.g. 5.00")


def _decimal(value: Any, meant: str) -> Decimal:
    written = value.text if isinstance(value, Exact) else str(value)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise InvalidOperation
        number = Decimal(written.replace("_", ""))
        if not number.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise Refused(f"expected {meant}, got {shown(value)}") from None
    return number


def optional_dollars(value: Any) -> Decimal | None:
    return None if value is None else dollars(value)


def day(value: Any) -> date:
    plain = _plain(value)
    if isinstance(plain, datetime) or not isinstance(plain, date):
        raise Refused(f"expected a day, e.g. 2026-11-30, got {shown(value)}")
    return plain


def moment(value: Any) -> datetime | None:
    """A day means its beginning, and a time without a zone is in UTC."""
    plain = _plain(value)
    if plain is None:
        return None
    if isinstance(plain, datetime):
        return plain.astimezone(UTC) if plain.tzinfo else plain.replace(tzinfo=UTC)
    if isinstance(plain, date):
        return datetime(plain.year, plain.month, plain.day, tzinfo=UTC)
    raise Refused(f"expected a day or a time, e.g. 2026-11-30 or 2026-11-30T12:00:00Z, got {shown(value)}")


def texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Refused(f"expected a list of texts, got {shown(value)}")
    made = [text(item) for item in value]
    if twice := {item for item in made if made.count(item) > 1}:
        raise Refused(f"named twice: {', '.join(sorted(twice))}")
    return made


def json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"expected a mapping, e.g. {{temperature: 0.7}}, got {shown(value)}")
    return {key: _json(item) for key, item in value.items()}


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return float(value)
    raise Refused(f"{shown(value)} cannot be written as JSON; put it in quotes")


def one_of(known: Callable[[], Iterable[str]]) -> Callable[[Any], str]:
    """One of a closed list of words, read when it is needed."""

    def read(value: Any) -> str:
        word, allowed = text(value), [str(one) for one in known()]
        if word not in allowed:
            hint = did_you_mean(word, allowed) or "."
            raise Refused(f"{shown(value)} is not known{hint} Use one of: {', '.join(allowed)}")
        return word

    return read
