"""The ledger: a row and its holds before the upstream is called, its final state and cost afterwards.

    async with ledger.entry(opening) as entry:      admitted: committed, with a hold on every budget
        ...                                         the upstream is called
        entry.final |= {"state": …, "cost_nano_usd": …}
                                                    settled: committed, whatever happened in between

Money has this one writer. A call that reaches an upstream has a committed row; a row leaves `running` exactly
once; holds are released by whoever moves it. See `books` for the invariants, `writer` for the thread,
`recovery` for what happens after a crash, `audit` for the proof.
"""

import asyncio
import random
import secrets
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime

from completions.errors import UnavailableError
from completions.ledger.operations import Adjust, Admit, Opening, Post, Row, Settle
from completions.ledger.replies import LoopReply
from completions.ledger.writer import close, forget, is_away, start, submit, unavailable
from completions.models import State

__all__ = [
    "Entry",
    "Opening",
    "Row",
    "close",
    "correct",
    "entry",
    "forget",
    "is_away",
    "new_id",
    "post",
    "start",
]

_random = random.Random(secrets.randbits(256))  # noqa: S311 - ids are to differ, not to be secret
ADMIT_SECONDS = 0.8  # a caller is told within a second that the ledger cannot be written
CORRECT_SECONDS = 30.0


def new_id() -> uuid.UUID:
    """A UUID of version 7: ordered by time (ms), 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | _random.getrandbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


class Entry:
    """A row that is open. The pipeline fills it before it leaves; what is not said stays as it was."""

    __slots__ = ("_admit", "_slot", "_writer", "attempts", "content", "final", "id")

    def __init__(self, opening: Opening) -> None:
        self.id = opening.id
        self.final: Row = {}
        self.attempts: Sequence[Row] = ()
        self.content: Row | None = None
        self._admit = Admit(opening, datetime.now(UTC), done=LoopReply())
        self._slot = -1

    def received(self, count: int) -> None:
        """So many bytes of answer have come by now: what is billed if the process dies."""
        progress = self._writer.progress
        if progress is None:
            return
        if self._slot < 0:
            self._slot = progress.begin(self.id)
        progress.count(self._slot, count)

    async def __aenter__(self) -> "Entry":
        self._writer = submit(self._admit)
        try:
            cancelled = await _reply(self._admit).wait(ADMIT_SECONDS, unavailable)
        except UnavailableError:
            self._admit.abandoned = True
            raise
        if cancelled is not None:
            await self._settle()
            raise cancelled
        return self

    async def __aexit__(self, *_: object) -> None:
        cancelled = await self._settle()
        if cancelled is not None:
            raise cancelled

    async def _settle(self) -> asyncio.CancelledError | None:
        final = {"state": State.UPSTREAM_ERROR, **self.final, "finished_at": datetime.now(UTC)}
        hold = self._admit.opening.hold_nano
        charges = dict.fromkeys(self._admit.windows, hold)
        settle = Settle(self.id, final, self.attempts, self.content, charges, done=LoopReply())
        submit(settle)
        cancelled = await _reply(settle).wait()
        if self._slot >= 0 and self._writer.progress is not None:
            self._writer.progress.end(self._slot)
        return cancelled


def entry(opening: Opening) -> Entry:
    """Admit on entering, settle on leaving, whatever happens in between; cancellation cannot stop the
    settlement.

    Raises BudgetExceededError when a hard budget does not cover the call, UnavailableError when the row
    cannot be written within ADMIT_SECONDS: then nothing may be called.
    """
    return Entry(opening)


async def post(opening: Opening, final: Row, content: Row | None = None) -> asyncio.CancelledError | None:
    """A final row of a call that cost nothing, committed; a cancellation that came meanwhile is returned.

    While the database is away the row waits in the spool. Raises UnavailableError where it cannot be kept.
    """
    now = datetime.now(UTC)
    operation = Post(opening, now, {**final, "finished_at": now}, content, LoopReply())
    submit(operation)
    return await _reply(operation).wait()


def _reply(operation: Admit | Settle | Post) -> LoopReply:
    assert isinstance(operation.done, LoopReply)  # noqa: S101 - made so above
    return operation.done


def correct(
    completion_id: uuid.UUID,
    kind: str,
    cost_nano: int,
    *,
    prices: str = "",
    price_source: str = "",
    reason: str = "",
) -> None:
    """Let a settled call have cost `cost_nano` in all, by a row beside it and on every window it was charged
    to.

    Doing so again changes nothing. Raises UnavailableError when the database cannot be written.
    """
    done: Future[None] = Future()
    submit(Adjust(completion_id, kind, cost_nano, prices, price_source, reason, done))
    done.result(CORRECT_SECONDS)
