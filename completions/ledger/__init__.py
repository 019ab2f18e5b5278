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
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from django.utils import timezone

from completions.errors import UnavailableError
from completions.ledger.operations import Adjust, Admit, Opening, Row, Settle
from completions.ledger.writer import Writer, close, forget, start, submit
from completions.models import State
from completions.tasks import unbroken

__all__ = ["Entry", "Opening", "Row", "close", "correct", "entry", "forget", "new_id", "start"]

ADMIT_SECONDS = 0.8  # a caller is told within a second that the ledger cannot be written
CORRECT_SECONDS = 30.0


def new_id() -> uuid.UUID:
    """A UUID of version 7: ordered by time (ms), 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


@dataclass(slots=True)
class Entry:
    """A row that is open. The pipeline fills it before it leaves; what is not said stays as it was."""

    id: uuid.UUID
    writer: Writer
    slot: int
    final: Row = field(default_factory=dict)
    attempts: list[Row] = field(default_factory=list)
    content: Row | None = None

    def received(self, count: int) -> None:
        """So many bytes of answer have come by now: what is billed if the process dies."""
        if self.writer.progress is not None:
            self.writer.progress.count(self.slot, count)


@asynccontextmanager
async def entry(opening: Opening) -> AsyncIterator[Entry]:
    """Admit on entering, settle on leaving, whatever happens in between; cancellation cannot stop the
    settlement.

    Raises BudgetExceededError when a hard budget does not cover the call, UnavailableError when the row
    cannot be written within ADMIT_SECONDS: then nothing may be called.
    """
    admit = Admit(opening, timezone.now())
    writer = submit(admit)
    cancelled = await _admitted(admit)
    progress = writer.progress
    opened = Entry(opening.id, writer, progress.begin(opening.id) if progress is not None else -1)
    try:
        if cancelled is not None:
            raise cancelled
        yield opened
    finally:
        final = {"state": State.UPSTREAM_ERROR} | opened.final | {"finished_at": timezone.now()}
        settle = Settle(opening.id, final, opened.attempts, opened.content)
        submit(settle)
        _, cancelled = await unbroken(asyncio.wrap_future(settle.done))
        if progress is not None:
            progress.end(opened.slot)
        if cancelled is not None:
            raise cancelled


async def _admitted(admit: Admit) -> asyncio.CancelledError | None:
    """Wait for the commit, whatever else happens; a cancellation that came meanwhile is returned."""
    waiting = asyncio.wrap_future(admit.done)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be that nobody asks
    loop = asyncio.get_running_loop()
    until = loop.time() + ADMIT_SECONDS
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        if (left := until - loop.time()) <= 0:
            admit.abandoned = True
            admit.done.add_done_callback(lambda done: _void(admit, done))
            raise UnavailableError(
                "The hub's ledger cannot be written now. Try again shortly.", retry_after=5
            )
        try:
            await asyncio.wait([waiting], timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    waiting.result()
    return cancelled


def _void(admit: Admit, done: "Future[None]") -> None:
    """An admit that was committed after its caller had been refused.

    Nothing was called, so nothing is owed.
    """
    if done.exception() is None:
        final = {"state": State.CANCELLED, "cost_nano_usd": 0, "finished_at": timezone.now()}
        submit(Settle(admit.opening.id, final))


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
    correction = Adjust(completion_id, kind, cost_nano, prices, price_source, reason)
    submit(correction)
    correction.done.result(CORRECT_SECONDS)
