"""The rows of what is cached: what staff look into, and what the hot store is filled from.

Rows and hit counts are written together, a moment later, in a thread: no call waits for them.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import orjson
from django.core.cache import caches
from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.models import F, Q
from django.utils import timezone

from completions.cache import stores
from completions.cache.entry import Entry, is_sound, packed, usage_from, usage_list
from completions.cache.memory import MemoryCache
from completions.errors import UnavailableError
from completions.models import CachedResponse
from providers import database
from providers.types import JSON, Operation
from providers.wire_json import dumped

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
BATCH = 100
MOST_WAITING = 10_000  # rows; a database that is away for long must not fill the memory
PINNED_SECONDS = 10 * 366 * 86_400.0
WORDS = 200  # characters of the question that a list shows
ENTRY_OVERHEAD = 300  # bytes that an entry takes in memory, beside its data
AWAY = (OperationalError, InterfaceError)  # the database is; it will be back


@dataclass(slots=True)
class Kept:
    """An entry that was stored, and what its row says beside it."""

    key: str
    entry: Entry
    operation: Operation
    upstream_model: str
    asked: JSON
    end_user: str = ""
    with_content: bool = True
    group: str = ""
    vector: bytes | None = None
    size: int = 0
    by_staff: bool = False  # who may replace a pinned answer
    purges: int | None = None  # as `stores.purges_seen` said when it was stored


@dataclass(slots=True)
class _Hits:
    count: int = 0
    saved_nano: int = 0
    last_at: datetime = field(default_factory=timezone.now)


class _Waiting:
    lock = threading.Lock()
    flushing = threading.Lock()
    rows: ClassVar[dict[str, Kept]] = {}
    hits: ClassVar[dict[str, _Hits]] = {}
    timer: threading.Timer | None = None


def note_stored(kept: Iterable[Kept]) -> None:
    """Write these rows shortly."""
    seen = stores.purges_seen()
    with _Waiting.lock:
        for one in kept:
            one.purges = seen
            _Waiting.rows[one.key] = one
        _start_timer()


def is_full() -> bool:
    """Whether so many rows wait that no more can. What would have no row must not be stored."""
    return len(_Waiting.rows) >= MOST_WAITING


def note_hits(hit: Iterable[tuple[str, Entry]]) -> None:
    """Count a hit of each entry shortly, and what it saved."""
    with _Waiting.lock:
        for key, entry in hit:
            hits = _Waiting.hits.setdefault(key, _Hits())
            hits.count += 1
            hits.saved_nano += entry.cost_nano or 0
            hits.last_at = datetime.now(UTC)
        _start_timer()


def _start_timer() -> None:
    if _Waiting.timer is None:
        _Waiting.timer = threading.Timer(FLUSH_SECONDS, _flush_in_thread)
        _Waiting.timer.daemon = True
        _Waiting.timer.start()


def _flush_in_thread() -> None:
    try:
        flush()
    except (*AWAY, UnavailableError) as error:  # who else works with it says so
        logger.debug("Rows of cached answers wait for the database, or Redis: %s", error)
    except Exception as error:  # noqa: BLE001 - the cache goes on without these rows
        logger.warning("Rows of cached answers could not be written: %s", error)
    finally:
        connections.close_all()


def flush() -> None:
    """Write what waits: before a process ends, before a purge, or to read it.

    Not within a transaction: another flush, which this one waits for, may be waiting for that to end; and
    where it is undone, what was written is lost.
    """
    with _Waiting.flushing:
        rows, hits = _taken()
        try:
            for start in range(0, len(rows), BATCH):
                _write(rows[start : start + BATCH])
            if hits:
                with transaction.atomic():
                    for key, seen in sorted(hits.items()):
                        _count(key, seen)
        except (*AWAY, UnavailableError):
            _put_back(rows, hits)
            raise
        except Exception:  # what has no row cannot be purged
            stores.drop_now([one.key for one in rows])
            raise


def forget() -> None:
    """Drop what waits: for tests."""
    _taken()


def _taken() -> tuple[list[Kept], dict[str, _Hits]]:
    """What waits, and waits no more."""
    with _Waiting.lock:
        rows, hits = list(_Waiting.rows.values()), dict(_Waiting.hits)
        _Waiting.rows.clear()
        _Waiting.hits.clear()
        if _Waiting.timer is not None:
            _Waiting.timer.cancel()
            _Waiting.timer = None
        return rows, hits


def _put_back(rows: Iterable[Kept], hits: Mapping[str, _Hits]) -> None:
    """It could not be written: again later, under what came meanwhile."""
    with _Waiting.lock:
        for one in rows:
            _Waiting.rows.setdefault(one.key, one)
        for key, seen in hits.items():
            later = _Waiting.hits.setdefault(key, seen)
            if later is not seen:
                later.count += seen.count
                later.saved_nano += seen.saved_nano
        _start_timer()


def _write(rows: list[Kept]) -> None:
    """All together; where one is at fault (its project was deleted meanwhile), each alone.

    A pinned answer that a call has replaced is put back: it stays until staff ask again, unpin or purge.
    """
    pinned_rows = CachedResponse.objects.filter(key__in=[one.key for one in rows], pinned=True)
    staying = {row.key: entry for row in pinned_rows if (entry := entry_of(row)) is not None}
    rows = [one for one in rows if one.key not in staying or (one.by_staff and one.with_content)]
    for one in rows:
        staying.pop(one.key, None)
    stores.put_now((key, packed(entry), PINNED_SECONDS) for key, entry in staying.items())
    if not rows:
        return
    try:
        with transaction.atomic():
            CachedResponse.objects.bulk_create(
                sorted((_row(one) for one in rows), key=lambda row: row.key),
                update_conflicts=True,
                unique_fields=["key"],
                update_fields=UPDATED,
            )
            pinned = set(
                CachedResponse.objects.filter(key__in=[one.key for one in rows], pinned=True).values_list(
                    "key", flat=True
                )
            )
    except AWAY:
        raise
    except DatabaseError as error:
        if len(rows) > 1:
            for one in rows:
                _write([one])
        else:  # what has no row cannot be purged
            logger.warning("The row of a cached answer could not be written: %s", error)
            stores.drop_now([rows[0].key])
        return
    stores.put_now((one.key, pinned_data(one.entry), PINNED_SECONDS) for one in rows if one.key in pinned)
    if gone := stores.purged_meanwhile([(one.key, one.entry, one.purges) for one in rows]):
        CachedResponse.objects.filter(key__in=gone).delete()
        stores.drop_now(gone)


def _count(key: str, seen: _Hits) -> None:
    CachedResponse.objects.filter(key=key).update(
        hits=F("hits") + seen.count,
        saved_nano_usd=F("saved_nano_usd") + seen.saved_nano,
        last_hit_at=seen.last_at,
    )


UPDATED = [
    "group", "vector", "project", "api_key", "end_user", "model", "completion_id", "first_words", "request",
    "response", "facts", "cost_nano_usd", "size_bytes", "created_at", "expires_at", "stale_until",
]  # fmt: skip


def _row(kept: Kept) -> CachedResponse:
    entry = kept.entry
    request = dumped(kept.asked).decode() if kept.with_content else ""
    facts = {"usage": usage_list(entry.usage), "finish_reason": entry.finish_reason}
    return CachedResponse(
        key=kept.key,
        group=kept.group,
        vector=kept.vector,
        project_id=entry.project_id,
        api_key_id=entry.api_key_id,
        end_user=kept.end_user,
        completion_id=entry.call,
        operation=kept.operation.value,
        provider_slug=entry.provider,
        model=entry.public_model,
        upstream_model=kept.upstream_model,
        first_words=first_words(kept.asked) if kept.with_content else "",
        request=request,
        response=dumped(entry.body).decode() if kept.with_content else "",
        facts=dumped(facts).decode(),
        cost_nano_usd=entry.cost_nano,
        size_bytes=kept.size + len(request) + len(kept.vector or b""),
        created_at=_time(entry.stored),
        expires_at=_time(entry.fresh_until),
        stale_until=_time(entry.stale_until),
    )


def first_words(asked: Mapping[str, Any]) -> str:
    """The beginning of what was asked last, on one line."""
    messages = asked.get("messages")
    if isinstance(messages, list) and messages:
        told = messages[-1].get("content")
        if isinstance(told, list):
            told = " ".join(str(part.get("text") or "") for part in told if isinstance(part, dict))
    else:
        told = asked.get("prompt") or asked.get("input")
    return " ".join(str(told or "").replace("\0", "").split())[:WORDS]


# --- back from the rows


def entry_of(row: CachedResponse) -> Entry | None:
    """The entry that a row was written of; None where its content was not kept, or cannot be read."""
    if row.completion_id is None:
        return None
    try:
        facts = orjson.loads(row.facts)
        entry = Entry(
            body=orjson.loads(row.response),
            usage=usage_from(facts["usage"]),
            cost_nano=row.cost_nano_usd,
            finish_reason=facts["finish_reason"],
            call=row.completion_id,
            provider=row.provider_slug,
            public_model=row.model,
            project_id=row.project_id,
            api_key_id=row.api_key_id,
            stored=row.created_at.timestamp(),
            fresh_until=row.expires_at.timestamp() + (PINNED_SECONDS if row.pinned else 0),
            stale_until=row.stale_until.timestamp() + (PINNED_SECONDS if row.pinned else 0),
        )
        return entry if is_sound(entry) else None
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def pinned_data(entry: Entry) -> bytes:
    """An entry that stays fresh."""
    return packed(
        entry._replace(
            fresh_until=entry.fresh_until + PINNED_SECONDS, stale_until=entry.stale_until + PINNED_SECONDS
        )
    )


def load() -> int:
    """Fill this process's memory from the rows, the last used first; how many entries came in."""
    cache = caches["default"]
    if not isinstance(cache, MemoryCache):
        return 0
    with _Waiting.flushing:  # no row goes, or comes, between
        with database.glance():
            fitting = list(_fitting(cache.most - cache.size))
        # Whatever is put in last is the last to go: the last used.
        return sum(cache.add(stores.PREFIX + key, data, seconds) for key, data, seconds in reversed(fitting))


def _fitting(room: int) -> Iterator[stores.Kept]:
    rows = CachedResponse.objects.exclude(response="").filter(
        Q(pinned=True) | Q(stale_until__gt=timezone.now())
    )
    rows = rows.order_by(F("last_hit_at").desc(nulls_last=True), "-created_at")
    for row in rows.iterator(chunk_size=BATCH):
        if (entry := entry_of(row)) is None:
            continue
        data = packed(entry)
        room -= len(data) + ENTRY_OVERHEAD
        if room < 0:
            return
        yield row.key, data, entry.stale_until - time.time()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
