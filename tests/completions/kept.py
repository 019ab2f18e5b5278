"""Answers that were just stored, for tests of what is made of them."""

import time
import uuid
from typing import Any

from django.core.cache import caches

from completions.cache import index, stores
from completions.cache.entry import Entry, packed, unpacked
from completions.cache.index import Kept
from completions.models import CachedResponse, Project
from providers.types import Operation, Usage
from tests.fakes import completion

HOUR = 3600.0


def kept(project: Project, key: str = "k", **changes: Any) -> Kept:
    """An answer that was just stored; `changes` of its entry."""
    now = time.time()
    facts: dict[str, Any] = {
        "body": completion(f"answer of {key}"),
        "usage": Usage(9, 3),
        "cost_nano": 500,
        "finish_reason": "stop",
        "call": uuid.uuid4(),
        "provider": "acme",
        "public_model": "smart",
        "project_id": project.pk,
        "api_key_id": None,
        "stored": now,
        "fresh_until": now + HOUR,
        "stale_until": now + 2 * HOUR,
    }
    entry = Entry(**(facts | changes))
    asked = {"messages": [{"role": "user", "content": f"question {key}"}], "temperature": 0}
    return Kept(key, entry, Operation.CHAT, "gpt-4o", asked, end_user="ada", size=len(packed(entry)))


def store(*these: Kept) -> None:
    """As it is done when an answer came."""
    stores.put_now((one.key, packed(one.entry), one.entry.stale_until - time.time()) for one in these)
    index.note_stored(these)


def found(key: str = "k") -> Entry | None:
    """What lies in the hot store."""
    data = caches["default"].get(stores.PREFIX + key)
    return None if data is None else unpacked(data)


def rows() -> dict[str, CachedResponse]:
    return {row.key: row for row in CachedResponse.objects.all()}
