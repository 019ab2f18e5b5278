"""Pins: answers that stay, and stay fresh, until they are purged."""

import time

from django.utils import timezone

from completions.cache import index, stores
from completions.cache.entry import packed
from completions.cache.index import PINNED_SECONDS, entry_of
from completions.errors import InvalidRequestError
from completions.models import CachedResponse

NOT_KEPT = "Its project or key keeps no content, so this answer lies in the hot store alone: it cannot stay."


def pin(row: CachedResponse) -> None:
    """Keep an answer for good. Raises InvalidRequestError where its content is not kept, UnavailableError."""
    index.flush()
    row.refresh_from_db()
    row.pinned = True
    if not _put(row):
        raise InvalidRequestError(NOT_KEPT)
    CachedResponse.objects.filter(pk=row.pk).update(pinned=True)


def unpin(row: CachedResponse) -> None:
    """Let an answer end when its time is over; at once, if it is. Raises UnavailableError."""
    index.flush()
    row.refresh_from_db()
    row.pinned = False
    if row.stale_until <= timezone.now() or not _put(row):
        stores.drop_now([row.key])
    CachedResponse.objects.filter(pk=row.pk).update(pinned=False)


def restore() -> int:
    """Put back pinned answers that the hot store has lost (it was full, or began anew); how many."""
    pinned = CachedResponse.objects.filter(pinned=True).exclude(response="")
    lost = stores.missing_now(pinned.values_list("key", flat=True))
    return sum(_put(row) for row in pinned.filter(key__in=lost).iterator(chunk_size=index.BATCH))


def _put(row: CachedResponse) -> bool:
    """Put an answer where calls look for it, for as long as its row says; whether it could be read."""
    entry = entry_of(row)
    if entry is None:
        return False
    seconds = PINNED_SECONDS if row.pinned else entry.stale_until - time.time()
    stores.put_now([(row.key, packed(entry), seconds)])
    return True
