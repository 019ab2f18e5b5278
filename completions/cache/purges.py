"""What processes tell each other of purges, through Redis: by origin for good, by keys for a while."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from completions.cache.entry import Entry

PURGED_SECONDS = 60  # for so long a purge is told to who might still be writing what it meant
MOST_PURGES = 64  # by origin; beyond, the oldest of them count for everything that was stored before


def joined(known: Sequence[Mapping[str, Any]], selection: Mapping[str, Any], now: float) -> list[Any]:
    """`known` purges and one more, without those that it covers."""
    by_keys = [one for one in known if "keys" in one and one["at"] > now - PURGED_SECONDS]
    by_origin = [one for one in known if "keys" not in one]
    if "keys" in selection:
        return [*by_origin, *by_keys, {**selection, "at": now}]
    by_origin = [one for one in by_origin if not selection.items() <= one.items()]
    if len(by_origin) >= MOST_PURGES:
        older = len(by_origin) - MOST_PURGES // 2
        by_origin = [{"at": by_origin[older - 1]["at"]}, *by_origin[older:]]
    return [*by_origin, {**selection, "at": now}, *by_keys]


def purges_of(purges: bytes | None) -> list[dict[str, Any]] | None:
    """What processes told of their purges; None where it cannot be read: it may have meant everything."""
    try:
        told = orjson.loads(purges or b"[]")
        are_sound = all(
            isinstance(one["at"], float) and isinstance(one.get("keys", []), list) for one in told
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return told if are_sound and isinstance(told, list) else None


def is_purged(key: str, entry: Entry, purges: Sequence[Mapping[str, Any]]) -> bool:
    return any(entry.stored <= one["at"] and _is_meant(key, entry, one) for one in purges)


def _is_meant(key: str, entry: Entry, selection: Mapping[str, Any]) -> bool:
    """Whether a purge takes this entry: by its key, or by all that is said of its origin."""
    if "keys" in selection:
        return key in selection["keys"]
    named = ("project_id", "provider", "public_model", "api_key_id")
    return all(getattr(entry, name) == selection[name] for name in named if name in selection)
