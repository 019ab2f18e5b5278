"""The database as what a process keeps in memory sees it: looked at in passing, or away for the moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, OperationalError, connection

AWAY_SECONDS = 1.5  # that a failure speaks for the next look; the ledger's writer asks more often


class _State:
    away_until = float("-inf")  # monotonic


def is_away() -> bool:
    """Whether the database could not be reached just now."""
    return time.monotonic() < _State.away_until


def note(*, away: bool) -> None:
    """Tell the rest of the process what came of an attempt."""
    _State.away_until = time.monotonic() + AWAY_SECONDS if away else float("-inf")


@contextmanager
def glance() -> Iterator[None]:
    """A look that leaves the thread's connection as it was.

    One opened for it goes back to the pool at once: the thread of a request would keep it for as long as the
    call runs, and a few of those are all there are. Raises OperationalError at once while the database is
    away: a caller is not kept waiting for what will fail.
    """
    if is_away():
        raise OperationalError("the database could not be reached a moment ago")
    was_open = connection.connection is not None
    try:
        yield
    except (OperationalError, InterfaceError):
        note(away=True)
        raise
    finally:
        if not was_open and not connection.in_atomic_block:
            connection.close()
