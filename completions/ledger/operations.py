"""What is asked of the writer thread, each with a reply that tells when it is committed; and its queue."""

import contextlib
import queue
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from completions.budgets import Claim
from completions.ledger.replies import LoopReply
from completions.types import Caller

BATCH = 256  # operations in one commit at most
# A commit costs the same for one call as for many. Where calls come in company, a moment is waited for more,
# as PostgreSQL's commit_delay and commit_siblings do. A lone call never waits.
SIBLINGS = 3
GATHER_SECONDS = 0.002

Row = dict[str, Any]
Reply = Future[None] | LoopReply  # for who waits in a thread, or on an event loop


class Opening(NamedTuple):
    """What is known of a call before it is made: the row in state `running`, and what it may cost at most."""

    id: uuid.UUID
    caller: Caller
    requested_model: str
    stream: bool
    end_user: str = ""
    claims: Sequence[Claim] = ()
    hold_nano: int = 0
    prompt_tokens: int | None = None  # our own count or estimate: what a crash leaves to bill
    provider_slug: str = ""  # the first candidate, until another answers
    model: str = ""
    prices: str = ""  # of the first candidate, as JSON
    price_source: str = ""
    operation: str = "chat"


@dataclass(slots=True, eq=False)
class Admit:
    """Write a row and hold its worst case on every claim; or refuse, alone."""

    opening: Opening
    created_at: datetime
    windows: tuple[int, ...] = ()  # set by the writer: where the hold lies
    abandoned: bool = False  # its caller was refused meanwhile: it need not be written any more
    done: "Reply" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class Settle:
    """Make a row final, release its hold, book its cost. A row that is final already stays as it is."""

    id: uuid.UUID
    final: Row
    attempts: Sequence[Row] = ()
    content: Row | None = None
    charges: Mapping[int, int] | None = None  # its hold by window, where it is known
    done: "Reply" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class Post:
    """Write a row that is final from the beginning: of a call that had its answer without an upstream call.

    It costs nothing, so it holds nothing and is charged to no window.
    """

    opening: Opening
    created_at: datetime
    final: Row
    content: Row | None = None
    done: "Reply" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class Adjust:
    """Correct a settled cost by a row beside it, on every window the call was charged to.

    `cost_nano` is what the call shall have cost in all: the difference from what is booked is found when it
    is written, so the same correction twice, or two at once, make one.
    """

    id: uuid.UUID
    kind: str
    cost_nano: int
    prices: str
    price_source: str
    reason: str
    done: "Reply" = field(default_factory=Future)


Operation = Admit | Settle | Post | Adjust
Lasting = Settle | Post  # what must not be lost


class Inbox:
    """What waits for the writer. None is the end."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._company = False  # the last batch was of several calls: the next will be, too

    def put(self, operation: Operation | None) -> None:
        self._queue.put(operation)

    def batch(self, seconds: float) -> list[Operation] | None:
        """Everything that waits, perhaps nothing after so long; None when it has ended."""
        try:
            first = self._queue.get(timeout=seconds)
        except queue.Empty:
            return []
        if first is None:
            return None
        if self._company:
            time.sleep(GATHER_SECONDS)
        batch = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                operation = self._queue.get_nowait()
                if operation is None:
                    self._queue.put(None)  # end after this batch
                    break
                batch.append(operation)
        self._company = len(batch) >= SIBLINGS
        return batch
