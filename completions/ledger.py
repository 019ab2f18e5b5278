"""The ledger: a row before the upstream is called, its final state afterwards, each committed before anyone
is told.

Invariants:
- A call that reaches an upstream has a row; the row was committed first.
- A row leaves `running` exactly once; settling again changes nothing.
- Money is whole nano-dollars; no price known is NULL, never 0.

One writer thread per process owns a database connection and commits all waiting admits and settlements
together: under load many calls share one fsync, and no coroutine ever waits for a lock.
"""

import asyncio
import contextlib
import logging
import queue
import secrets
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from completions.errors import UnavailableError
from completions.models import Completion, State
from completions.tasks import unbroken
from completions.types import Caller

logger = logging.getLogger(__name__)
BATCH = 256  # operations in one commit at most
CLOSE_SECONDS = 30.0  # how long closing waits for settlements still queued


def new_id() -> uuid.UUID:
    """A UUID of version 7: ordered by time (ms), 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known of a call before it is made."""

    id: uuid.UUID
    caller: Caller
    requested_model: str
    stream: bool
    end_user: str = ""

    def row(self) -> Completion:
        return Completion(
            id=self.id,
            request_id=self.caller.request_id or self.id.hex,
            project_id=self.caller.project_id,
            api_key_id=self.caller.api_key_id,
            user_id=self.caller.user_id,
            end_user=self.end_user,
            surface=self.caller.surface,
            requested_model=self.requested_model,
            stream=self.stream,
            created_at=timezone.now(),
        )


@dataclass(slots=True)
class Entry:
    """A row that is open. The pipeline fills `final` before it leaves; what is not said stays as it was."""

    id: uuid.UUID
    final: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def entry(opening: Opening) -> AsyncIterator[Entry]:
    """Admit on entering, settle on leaving, whatever happens in between; cancellation cannot stop the
    settlement.

    Raises UnavailableError when the row cannot be written: then nothing may be called.
    """
    _, cancelled = await unbroken(asyncio.wrap_future(_submit(_Admit(opening.row()))))
    opened = Entry(opening.id)
    try:
        if cancelled is not None:
            raise cancelled
        yield opened
    finally:
        opened.final.setdefault("state", State.UPSTREAM_ERROR)
        final = opened.final | {"finished_at": timezone.now()}
        _, cancelled = await unbroken(asyncio.wrap_future(_submit(_Settle(opening.id, final))))
        if cancelled is not None:
            raise cancelled


@dataclass(frozen=True, slots=True)
class _Admit:
    row: Completion
    done: "Future[None]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Settle:
    id: uuid.UUID
    final: dict[str, Any]
    done: "Future[None]" = field(default_factory=Future)


Operations = queue.SimpleQueue[_Admit | _Settle | None]


class _Writer:
    """The thread and its queue; None while it does not run."""

    lock = threading.Lock()
    thread: threading.Thread | None = None
    operations: Operations = queue.SimpleQueue()


def _submit(operation: _Admit | _Settle) -> "Future[None]":
    with _Writer.lock:
        if _Writer.thread is None:
            _Writer.operations = queue.SimpleQueue()
            _Writer.thread = threading.Thread(
                target=_write, args=[_Writer.operations], name="llmhub-ledger", daemon=True
            )
            _Writer.thread.start()
        _Writer.operations.put(operation)
    return operation.done


def close() -> None:
    """Commit what is queued and end the thread. It starts again with the next call."""
    with _Writer.lock:
        thread, _Writer.thread = _Writer.thread, None
        if thread is None:
            return
        _Writer.operations.put(None)
    thread.join(CLOSE_SECONDS)
    if thread.is_alive():
        logger.error("the ledger did not close within %s s; settlements may be missing", CLOSE_SECONDS)


def _write(operations: Operations) -> None:
    try:
        while (batch := _next_batch(operations)) is not None:
            _commit(batch)
    finally:
        connection.close()


def _next_batch(operations: Operations) -> list[_Admit | _Settle] | None:
    """Everything that waits, at least one; None when the thread shall end."""
    first = operations.get()
    if first is None:
        return None
    batch = [first]
    with contextlib.suppress(queue.Empty):
        while len(batch) < BATCH:
            operation = operations.get_nowait()
            if operation is None:
                operations.put(None)  # end after this batch
                break
            batch.append(operation)
    return batch


def _commit(batch: list[_Admit | _Settle]) -> None:
    """One transaction for the whole batch.

    If it fails, each operation alone, so that one cannot sink the others.
    """
    error = _attempt(batch)
    if error is None or len(batch) == 1:
        _report(batch, error)
        return
    for operation in batch:
        _report([operation], _attempt([operation]))


def _attempt(batch: list[_Admit | _Settle]) -> Exception | None:
    try:
        with transaction.atomic():
            admits = [operation.row for operation in batch if isinstance(operation, _Admit)]
            if admits:
                Completion.objects.bulk_create(admits)
            for operation in batch:
                if isinstance(operation, _Settle):
                    Completion.objects.filter(pk=operation.id, state=State.RUNNING).update(**operation.final)
    except DatabaseError as error:
        logger.error("the ledger could not write: %s", error)
        with contextlib.suppress(DatabaseError):
            connection.close()
        return error
    except Exception as error:  # a programming error must fail its calls, not end the thread
        logger.exception("the ledger could not write")
        return error
    return None


def _report(batch: list[_Admit | _Settle], error: Exception | None) -> None:
    for operation in batch:
        if error is None:
            operation.done.set_result(None)
        else:
            refusal = UnavailableError(
                "The hub's ledger cannot be written now. Try again shortly.", retry_after=5
            )
            refusal.__cause__ = error
            operation.done.set_exception(refusal)
