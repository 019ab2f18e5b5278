"""The one writer of the ledger in this process: a thread that commits everything that waits, together.

While the ledger cannot be written it refuses admits at once, keeps settlements in the spool, and replays them
when it can. A settlement that the database refuses by itself is kept and tried again, too: none is dropped.
Between batches it beats for its epoch and recovers the rows of processes that died.
"""

import atexit
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.utils import IntegrityError
from django.utils import timezone

from completions import metrics
from completions.errors import UnavailableError
from completions.ledger import recovery
from completions.ledger.books import Books, Windows, committed
from completions.ledger.operations import BATCH, Admit, Inbox, Lasting, Operation, Post, Reply, Settle
from completions.ledger.progress import Progress
from completions.ledger.replies import LoopReply, deliver, is_over
from completions.ledger.spool import Spool, call_id, plainer_than
from completions.models import State
from providers import database

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0  # how often an idle writer looks around
RECOVER_SECONDS = 5.0
RETRY_SECONDS = 60.0  # between attempts at settlements that the database refused by themselves
CLOSE_SECONDS = 30.0  # how long closing waits for settlements still queued
CACHE_KIB = 32 << 10  # of SQLite's pages that the writer keeps: every call touches a dozen tables and indexes
CHECKPOINT_PAGES = 4000  # in SQLite's log before they are written back: each call changes the same ones
BUSY_MILLISECONDS = 2000  # that SQLite waits for another writer before the database counts as away


class Writer:
    """A thread, its queue and its epoch."""

    def __init__(self) -> None:
        self.operations = Inbox()
        self.progress: Progress | None = None  # set before the first admit is committed
        self.away = False
        self._epoch: int | None = None
        self._mine: set[int] = set()  # every epoch of this process: its rows are settled here
        self._windows: Windows = {}
        self._unkept: list[Lasting] = []  # settlements that the disk did not take either
        self._due = {self._beat: 0.0, self._replay: 0.0, self._recover: 0.0, self._retry: 0.0}
        self.thread = threading.Thread(target=self._run, name="llmhub-ledger", daemon=True)
        self.thread.start()

    def join(self) -> None:
        """Wait until what was queued before the end (None) is committed."""
        self.thread.join(CLOSE_SECONDS)
        if self.thread.is_alive():
            logger.error("the ledger did not close within %s s; its spool and recovery will", CLOSE_SECONDS)

    def begin_anew(self) -> None:
        """Forget the epoch and the windows, as if the process had just begun."""
        self._epoch = None
        self._windows.clear()

    # --- the thread

    def _run(self) -> None:
        try:
            while (batch := self.operations.batch(TICK_SECONDS)) is not None:
                if batch := _still_wanted(batch):
                    self._commit_or_fail(batch)
                self._look_around()
            self._finish()
        finally:
            connection.close()

    def _commit_or_fail(self, batch: list[Operation]) -> None:
        """Whatever goes wrong, nobody waits for ever and the thread lives on."""
        try:
            if self.away:  # `_beat` asks whether it is back; calls do not wait for the answer
                self._turn_away(batch, None)
            else:
                self._commit(batch)
        except Exception as error:
            logger.exception("the ledger's writer failed")
            self._turn_away([operation for operation in batch if not is_over(operation.done)], error)

    def _commit(self, batch: list[Operation]) -> None:
        """One transaction for the batch.

        If one of it is at fault, each alone, so that it cannot sink the others.
        """
        books, error = self._attempt(batch)
        if books is not None:
            _report(batch, books)
        elif self.away:
            self._turn_away(batch, error)
        elif len(batch) == 1:
            self._alone(batch[0], error)
        else:
            for operation in batch:
                self._commit([operation])

    def _alone(self, operation: Operation, error: Exception | None) -> None:
        """What the database refuses by itself."""
        if isinstance(operation, Settle | Post) and (plainer := plainer_than(operation)) is not None:
            self._commit([plainer])
        elif isinstance(operation, Post) and isinstance(error, IntegrityError):
            deliver([(operation.done, unavailable(error))])  # its project is gone, say: it can never be
        else:
            self._turn_away([operation], error)

    def _attempt(self, batch: Sequence[Operation]) -> tuple[Books | None, Exception | None]:
        began = time.monotonic()
        try:
            self._prepare()
            books = committed(self._epoch, self._windows, batch)
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
            # Others could not beat either: they are given the time to.
            self._due[self._recover] = time.monotonic() + recovery.BEAT_SECONDS
        self.away = False
        database.note(away=False)

    def _note(self, error: Exception, *, away: bool = False) -> None:
        """What failed. `away`: nothing can be written now, as when there is no epoch, whatever the error.

        Else one that is no outage may be the fault of what was to be written: the next beat, a write, tells.
        """
        gone = isinstance(error, OperationalError | InterfaceError)
        if not self.away:  # else it was said when it began
            known = isinstance(error, DatabaseError | InterfaceError)
            logger.error("the ledger could not write: %s", error, exc_info=None if known else error)
        if gone or away or self._epoch is None:
            self.away = True
            metrics.LEDGER_AWAY.set(1)
            self._due[self._beat] = time.monotonic() + TICK_SECONDS
        else:
            self._due[self._beat] = 0.0
        if gone:
            database.note(away=True)
        with contextlib.suppress(DatabaseError, InterfaceError):
            connection.close()

    def _turn_away(self, batch: Sequence[Operation], error: Exception | None) -> None:
        """Nothing can be written: refuse what is new, keep what must not be lost."""
        lasting = [operation for operation in batch if isinstance(operation, Settle | Post)]
        kept = {id(operation) for operation in self._keep(lasting)}
        deliver((one.done, None if id(one) in kept else unavailable(error)) for one in batch)

    def _keep(self, lasting: Sequence[Lasting]) -> Sequence[Lasting]:
        """Spool what must not be lost; returns what is kept.

        A settlement that cannot be spooled waits in memory: if the process dies meanwhile, its row is
        recovered. Who wants to post a row is told that it cannot be.
        """
        try:
            if lasting:
                Spool(recovery.spool_path(max(self._mine))).add(lasting)
            return lasting
        except Exception as full:  # noqa: BLE001 - ValueError: no epoch, the database was never there
            logger.error("the ledger could neither write nor spool: %s", full)
            settles = [operation for operation in lasting if isinstance(operation, Settle)]
            self._unkept += settles
            return settles

    # --- between batches

    def _look_around(self) -> None:
        now = time.monotonic()
        for step, due in self._due.items():
            if self.away and step != self._beat:  # the other steps would wait as long, and calls for them
                return
            if now >= due:
                self._due[step] = now + PERIODS[step.__name__]
                self._try(step)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - as in _attempt; the next look around tries again
            self._note(error, away=step == self._beat)

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
        """A new epoch, once there is a file for it: the one of the epoch before, or a new one."""
        unnamed = recovery.folder() / f"{uuid.uuid4().hex}.progress"
        if self.progress is None:
            self.progress = Progress(unnamed)
        else:
            self.progress.move(unnamed)
        epoch = recovery.register()
        try:
            self.progress.move(recovery.progress_path(epoch))
        except OSError:
            recovery.end(epoch)
            raise
        self._epoch = epoch
        self._mine.add(epoch)

    def _beat(self) -> None:
        self._prepare()
        alive = recovery.beat(self._epoch or 0)
        self._here()
        if not alive:
            logger.warning("this process was taken for dead (did its machine sleep?); it begins a new epoch")
            self._epoch = None
            self._windows.clear()
            self._prepare()

    def _replay(self) -> None:
        """Settle what was kept while it could not be written."""
        self._set_aside(self._settle_now(self._unkept))
        self._unkept = []
        for spool in recovery.spools_of(self._mine):
            self._replay_one(spool)

    def _retry(self) -> None:
        """Try again what the database had refused by itself."""
        for spool in recovery.refused(self._mine):
            self._replay_one(spool)

    def _replay_one(self, spool: Spool) -> None:
        with spool.held() as waiting:
            refused: list[Lasting] = []
            for start in range(0, len(waiting), BATCH):
                refused += self._settle_now(waiting[start : start + BATCH])
            if refused and spool.path.suffix == recovery.REFUSED:
                return  # it stays: what was settled of it now is not settled twice
            self._set_aside(refused)
            if waiting:
                spool.clear()

    def _settle_now(self, settles: Sequence[Lasting]) -> list[Lasting]:
        """Like `_commit`, of what nobody waits for; returns what the database refuses by itself.

        Raises when nothing can be written: it is tried again.
        """
        books, error = self._attempt(settles) if settles else (None, None)
        if books is not None or not settles:
            return []
        if self.away and error is not None:
            raise error
        if len(settles) > 1:
            return [refused for settle in settles for refused in self._settle_now([settle])]
        if (plainer := plainer_than(settles[0])) is not None:
            return self._settle_now([plainer])
        logger.error("call %s could not be settled: %s", call_id(settles[0]), error)
        return [*settles]

    def _set_aside(self, refused: Sequence[Lasting]) -> None:
        if refused:
            Spool(recovery.spool_path(max(self._mine), recovery.REFUSED)).add(refused)

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
        self._keep(self._unkept)
        if self._epoch is not None:
            self._try(lambda: recovery.end(self._epoch or 0))
        if self.progress is not None:
            self.progress.close()


PERIODS = {
    "_beat": recovery.BEAT_SECONDS,
    "_replay": TICK_SECONDS,
    "_recover": RECOVER_SECONDS,
    "_retry": RETRY_SECONDS,
}


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


def note_call(completion: uuid.UUID, number: int, model: int) -> None:
    """Upstream call `number` goes to this model, of a call whose progress is kept: for who recovers it."""
    writer = _Process.writer
    if writer is not None and writer.progress is not None:
        writer.progress.called(completion, number, model)


def is_away() -> bool:
    """Whether the ledger could not be written, or no epoch begun, when it was last tried."""
    writer = _Process.writer
    return writer is not None and (writer.away or not writer.thread.is_alive())


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
