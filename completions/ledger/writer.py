"""The one writer of the ledger in this process: a thread that commits everything that waits, together.

While the database is away it refuses admits at once, keeps settlements in the spool, and replays them when
the database is back. Between batches it beats for its epoch and recovers the rows of processes that died.
"""

import atexit
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from completions import metrics
from completions.errors import UnavailableError
from completions.ledger import recovery
from completions.ledger.books import Books, Windows
from completions.ledger.operations import Admit, Operation, Reply, Settle
from completions.ledger.progress import Progress
from completions.ledger.replies import LoopReply, deliver
from completions.ledger.spool import Spool
from completions.models import State
from providers import database

logger = logging.getLogger(__name__)

BATCH = 256  # operations in one commit at most
# A commit costs the same for one call as for many. Where calls come in company, a moment is waited for more,
# as PostgreSQL's commit_delay and commit_siblings do. A lone call never waits.
SIBLINGS = 3
GATHER_SECONDS = 0.002
TICK_SECONDS = 1.0  # how often an idle writer looks around
RECOVER_SECONDS = 5.0
CLOSE_SECONDS = 30.0  # how long closing waits for settlements still queued
CACHE_KIB = 32 << 10  # of SQLite's pages that the writer keeps: every call touches a dozen tables and indexes
CHECKPOINT_PAGES = 4000  # in SQLite's log before they are written back: each call changes the same ones
BUSY_MILLISECONDS = 2000  # that SQLite waits for another writer before the database counts as away

Operations = queue.SimpleQueue[Operation | None]


class Writer:
    """A thread, its queue and its epoch."""

    def __init__(self) -> None:
        self.operations: Operations = queue.SimpleQueue()
        self.progress: Progress | None = None  # set before the first admit is committed
        self.away = False
        self._company = False  # the last batch was of several calls: the next will be, too
        self._epoch: int | None = None
        self._mine: set[int] = set()  # every epoch of this process: its rows are settled here
        self._windows: Windows = {}
        self._due = {self._beat: 0.0, self._replay: 0.0, self._recover: 0.0}
        self._thread = threading.Thread(target=self._run, name="llmhub-ledger", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until what was queued before the end (None) is committed."""
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.error("the ledger did not close within %s s; its spool and recovery will", CLOSE_SECONDS)

    def begin_anew(self) -> None:
        """Forget the epoch and the windows, as if the process had just begun."""
        self._epoch = None
        self._windows.clear()

    # --- the thread

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                if batch := _still_wanted(batch):
                    self._commit_or_fail(batch)
                self._look_around()
            self._finish()
        finally:
            connection.close()

    def _next_batch(self) -> list[Operation] | None:
        """Everything that waits, perhaps nothing; None when the thread shall end."""
        try:
            first = self.operations.get(timeout=TICK_SECONDS)
        except queue.Empty:
            return []
        if first is None:
            return None
        if self._company:
            time.sleep(GATHER_SECONDS)
        batch = [first]
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                operation = self.operations.get_nowait()
                if operation is None:
                    self.operations.put(None)  # end after this batch
                    break
                batch.append(operation)
        self._company = len(batch) >= SIBLINGS
        return batch

    def _commit_or_fail(self, batch: list[Operation]) -> None:
        """Whatever goes wrong, nobody waits for ever and the thread lives on."""
        try:
            if self.away:  # `_beat` asks whether it is back; calls do not wait for the answer
                self._turn_away(batch, None)
            else:
                self._commit(batch)
        except Exception as error:
            logger.exception("the ledger's writer failed")
            deliver((operation.done, unavailable(error)) for operation in batch if not _answered(operation))

    def _commit(self, batch: list[Operation]) -> None:
        """One transaction for the batch.

        If one of it is at fault, each alone, so that it cannot sink the others.
        """
        books, error = self._attempt(batch)
        if books is not None:
            _report(batch, books)
        elif isinstance(error, OperationalError | InterfaceError):
            self._turn_away(batch, error)
        elif len(batch) == 1:
            self._alone(batch[0], error)
        else:
            for operation in batch:
                self._commit([operation])

    def _alone(self, operation: Operation, error: Exception | None) -> None:
        """What the database refuses by itself."""
        if isinstance(operation, Settle) and (plainer := _plainer(operation)) is not None:
            self._commit([plainer])
        else:
            deliver([(operation.done, unavailable(error))])

    def _attempt(self, batch: Sequence[Operation]) -> tuple[Books | None, Exception | None]:
        began = time.monotonic()
        try:
            self._prepare()
            books = Books(self._epoch, self._windows)
            with transaction.atomic():
                books.post(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails its calls and not the thread
            self._note(error)
            return None, error
        self._windows |= books.new_windows
        metrics.COMMIT.observe(time.monotonic() - began)
        self._here()
        return books, None

    def _here(self) -> None:
        if self.away:
            metrics.LEDGER_AWAY.set(0)
        self.away = False
        database.note(away=False)

    def _note(self, error: Exception) -> None:
        if not isinstance(error, DatabaseError | InterfaceError):
            logger.error("the ledger could not write", exc_info=error)
        elif not self.away:
            logger.error("the ledger could not write: %s", error)
        self.away = isinstance(error, OperationalError | InterfaceError)
        if self.away:
            metrics.LEDGER_AWAY.set(1)
            database.note(away=True)
            self._due[self._beat] = time.monotonic() + TICK_SECONDS
        with contextlib.suppress(DatabaseError, InterfaceError):
            connection.close()

    def _turn_away(self, batch: Sequence[Operation], error: Exception | None) -> None:
        """The database is away: refuse what is new, keep what must not be lost."""
        settles = [operation for operation in batch if isinstance(operation, Settle)]
        if settles:
            try:
                Spool(recovery.spool_path(max(self._mine))).add(settles)
            except OSError as full:
                logger.error("the ledger could neither write nor spool: %s", full)
                settles = []
        kept = {id(settle) for settle in settles}
        deliver((one.done, None if id(one) in kept else unavailable(error)) for one in batch)

    # --- between batches

    def _look_around(self) -> None:
        now = time.monotonic()
        for step, due in self._due.items():
            if now >= due:
                self._due[step] = now + PERIODS[step.__name__]
                self._try(step)
                if self.away:  # the other steps would wait as long, and calls for them
                    return

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - as in _attempt; the next look around tries again
            self._note(error)

    def _prepare(self) -> None:
        """A connection that waits no longer than it may, and an epoch."""
        if connection.connection is None and connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
                cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
                cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if self._epoch is None:
            self._begin()

    def _begin(self) -> None:
        epoch = recovery.register()
        if self.progress is None:
            self.progress = Progress(recovery.progress_path(epoch))
        else:  # a new epoch of the same process goes on with the same file, under its new name
            self.progress.path = self.progress.path.rename(recovery.progress_path(epoch))
        self._epoch = epoch
        self._mine.add(epoch)

    def _beat(self) -> None:
        self._prepare()
        alive = recovery.beat(self._epoch or 0)
        self._here()
        if not alive:
            logger.warning("this process was taken for dead (did its machine sleep?); it begins a new epoch")
            self._replay()
            self._epoch = None
            self._windows.clear()

    def _replay(self) -> None:
        """Settle what was spooled while the database was away."""
        for epoch in sorted(self._mine):
            self._replay_one(Spool(recovery.spool_path(epoch)))

    def _replay_one(self, spool: Spool) -> None:
        waiting = spool.read()
        for start in range(0, len(waiting), BATCH):
            self._settle_now(waiting[start : start + BATCH])
        if waiting:
            spool.clear()

    def _settle_now(self, settles: Sequence[Settle]) -> None:
        """Like `_commit`, of what nobody waits for. Raises when the database is away: it is tried again."""
        books, error = self._attempt(settles)
        if books is not None:
            return
        if isinstance(error, OperationalError | InterfaceError):
            raise error
        if len(settles) > 1:
            for settle in settles:
                self._settle_now([settle])
        elif (plainer := _plainer(settles[0])) is not None:
            self._settle_now([plainer])
        else:
            logger.error("call %s could not be settled: %s", settles[0].id, error)

    def _recover(self) -> None:
        self._prepare()
        for spool in recovery.spools_left(self._mine):
            self._replay_one(spool)
        for epoch_id in recovery.orphaned_epochs(self._mine):
            last = None
            while (settles := recovery.settlements(epoch_id)) and settles[0].id != last:
                logger.warning("recovering %s calls of epoch %s, which died", len(settles), epoch_id)
                self._settle_now(settles)
                last = settles[0].id
        recovery.close_dead(self._mine)

    def _finish(self) -> None:
        self._try(self._replay)
        if self._epoch is not None:
            self._try(lambda: recovery.end(self._epoch or 0))
        if self.progress is not None:
            self.progress.close()


PERIODS = {"_beat": recovery.BEAT_SECONDS, "_replay": TICK_SECONDS, "_recover": RECOVER_SECONDS}


def _plainer(settle: Settle) -> Settle | None:
    """The same money without its details, None where there are none.

    An attempt or a text that cannot be stored does not keep the row from its end.
    """
    if settle.attempts or settle.content:
        return Settle(settle.id, settle.final, charges=settle.charges, done=settle.done)
    return None


def _still_wanted(batch: list[Operation]) -> list[Operation]:
    """The batch without admits whose callers have left."""
    abandoned = [one for one in batch if isinstance(one, Admit) and one.abandoned]
    deliver((one.done, unavailable()) for one in abandoned)
    return [one for one in batch if one not in abandoned] if abandoned else batch


def _report(batch: Sequence[Operation], books: Books) -> None:
    refused = books.refused
    outcomes: list[tuple[Reply, BaseException | None]] = []
    for one in batch:
        refusal = refused.get(one.opening.id) if refused and isinstance(one, Admit) else None
        outcomes.append((one.done, refusal))
        if refusal is None and isinstance(one.done, LoopReply) and not one.done.commit():
            _void(one)
    deliver(outcomes)


def _void(operation: Operation) -> None:
    """An admit that was committed after its caller had been refused: nothing was called, nothing is owed."""
    if isinstance(operation, Admit):
        final = {"state": State.CANCELLED, "cost_nano_usd": 0, "finished_at": timezone.now()}
        submit(Settle(operation.opening.id, final))


def _answered(operation: Operation) -> bool:
    reply = operation.done
    return reply.over if isinstance(reply, LoopReply) else reply.done()


def unavailable(cause: BaseException | None = None) -> UnavailableError:
    """What a caller is told when its row cannot be written."""
    refusal = UnavailableError("The hub's ledger cannot be written now. Try again shortly.", retry_after=5)
    refusal.__cause__ = cause
    return refusal


class _Process:
    lock = threading.Lock()
    writer: Writer | None = None


def submit(operation: Operation) -> Writer:
    """Queue an operation with the writer of this process, which starts when it is first needed.

    Raises UnavailableError for an admit while the database is away.
    """
    with _Process.lock:
        if _Process.writer is None:
            _Process.writer = Writer()
        if isinstance(operation, Admit) and _Process.writer.away:
            raise unavailable()
        if isinstance(operation.done, Future):
            operation.done.set_running_or_notify_cancel()  # from now on nobody who waits can cancel it
        _Process.writer.operations.put(operation)
        return _Process.writer


def is_away() -> bool:
    """Whether the ledger could not be written when it was last tried."""
    writer = _Process.writer
    return writer is not None and writer.away


def close() -> None:
    """Commit what is queued and end the thread. The next operation starts another."""
    with _Process.lock:
        closing, _Process.writer = _Process.writer, None
        if closing is not None:
            closing.operations.put(None)
    if closing is not None:
        closing.join()


def forget() -> None:
    """Begin a new epoch with the next operation: for tests, which empty the database under a writer."""
    with _Process.lock:
        if _Process.writer is not None:
            _Process.writer.begin_anew()


def start() -> None:
    """Start the writer before the first call: it recovers what a dead process left."""
    with _Process.lock:
        if _Process.writer is None:
            _Process.writer = Writer()


atexit.register(close)
