"""Retention: answers past their time go, and beyond LLMHUB_CACHE_STORED_BYTES those unused for longest.

What is pinned stays.
"""

import time
from collections.abc import Iterator

from django.conf import settings
from django.db.models import F, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from completions.cache import stores
from completions.models import CachedResponse

BATCH = 500  # rows of one transaction
REST_SECONDS = 0.05  # between two, for the ledger to commit
LAST_USED = Coalesce("last_hit_at", "created_at")  # as its index has it


def prune() -> Iterator[int]:
    """Delete what is due, rows and answers; yields how many after each committed batch."""
    expired = _expired()
    while chosen := list(expired.order_by("stale_until").values_list("pk", flat=True)[:BATCH]):
        yield _delete(expired, chosen)
        time.sleep(REST_SECONDS)
    surplus, unpinned = _surplus(), CachedResponse.objects.filter(pinned=False)
    for start in range(0, len(surplus), BATCH):
        yield _delete(unpinned, surplus[start : start + BATCH])
        time.sleep(REST_SECONDS)


def due() -> int:
    """How many answers `prune` would delete now."""
    return len({*_expired().values_list("pk", flat=True), *_surplus()})


def _expired() -> QuerySet[CachedResponse]:
    return CachedResponse.objects.filter(pinned=False, stale_until__lte=timezone.now())


def _surplus() -> list[int]:
    """Rows that are too much, the longest unused first."""
    held = CachedResponse.objects.order_by().aggregate(sum=Sum("size_bytes"))["sum"] or 0
    excess = held - settings.LLMHUB_CACHE_STORED_BYTES
    chosen: list[int] = []
    if excess > 0:
        unused = CachedResponse.objects.filter(pinned=False).order_by(LAST_USED, F("size_bytes"))
        for pk, size in unused.values_list("pk", "size_bytes").iterator():
            chosen.append(pk)
            excess -= size
            if excess <= 0:
                break
    return chosen


def _delete(rows: QuerySet[CachedResponse], chosen: list[int]) -> int:
    """Delete those of `chosen` that `rows` still means: others were fetched anew, or pinned, meanwhile."""
    keys = list(rows.filter(pk__in=chosen).values_list("key", flat=True))
    count, _ = rows.filter(pk__in=chosen).delete()
    left = set(CachedResponse.objects.filter(key__in=keys).values_list("key", flat=True))
    stores.drop_now(key for key in keys if key not in left)
    return count
