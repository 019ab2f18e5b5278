"""Periodic jobs: one runner at a time over all processes, by leases in the table `Job`.

    @job("rollup", every_seconds=60)
    def rollup(state: JSON) -> bool: ...

A job gets what it remembered (`Job.state`), may change it, and says whether there is more to do at once. What
it remembered is kept only when it returns; so a job must do no harm when run twice. A job that raises is run
again later and later; a runner that dies loses its lease after LEASE_SECONDS.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from completions.models import Job
from providers.types import JSON

logger = logging.getLogger(__name__)

LEASE_SECONDS = 300
RUN_SECONDS = 30  # after which `time_left` says that a run should end: far below the lease
RESTS = 20.0  # of its own duration: a job takes at most a twentieth of a core
LONGEST_BACKOFF_SECONDS = 3600
FAILURES = "failures"  # in a job's state: runs that failed since the last good one

Run = Callable[[JSON], bool | None]
R = TypeVar("R", bound=Run)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A registered job, and how often it runs in this hub."""

    name: str
    every_seconds: float
    run: Run
    rests: float


_registered: dict[str, Periodic] = {}
_here = threading.local()
stopping = threading.Event()  # set while this process shuts down


def job(
    name: str, every_seconds: float, *, embedded_seconds: float | None = None, rests: float = RESTS
) -> Callable[[R], R]:
    """Register a function as a job. Where the hub is embedded, `embedded_seconds` apply if given.

    After a run it pauses `every_seconds`, or `rests` times as long as the run took where that is more.
    """

    def register(run: R) -> R:
        often = embedded_seconds if settings.LLMHUB_EMBEDDED and embedded_seconds else every_seconds
        _registered[name] = Periodic(name, often, run, rests)
        return run

    return register


def time_left() -> bool:
    """Whether the job that runs in this thread may go on. Always true outside of a job (in a command)."""
    deadline: float | None = getattr(_here, "deadline", None)
    return deadline is None or (time.monotonic() < deadline and not stopping.is_set())


def run_due(names: Iterable[str] | None = None) -> list[str]:
    """Run every registered job (or those of `names`) that is due and that no other process runs.

    Returns the names of those that ran, well or not. Raises DatabaseError only where the job table itself
    cannot be read or written.
    """
    wanted = [_registered[name] for name in names] if names is not None else list(_registered.values())
    _make_rows(wanted)
    ran = []
    for periodic in wanted:
        if stopping.is_set():
            break
        claimed = _claim(periodic)
        if claimed is not None:
            _run(periodic, claimed)
            ran.append(periodic.name)
    return ran


def reset(name: str, state: JSON) -> bool:
    """Have a job begin at once, remembering just `state`. Returns False, and does nothing, while it runs."""
    now = timezone.now()
    _make_rows([_registered[name]])
    idle = Job.objects.filter(Q(leased_until=None) | Q(leased_until__lte=now), name=name)
    return bool(idle.update(due_at=now, lease_owner="", leased_until=None, last_error="", state=state))


def last_error(name: str) -> str:
    """What the job's last run failed of; empty: it ended well, or never ran."""
    return Job.objects.filter(name=name).values_list("last_error", flat=True).first() or ""


def _make_rows(wanted: Iterable[Periodic]) -> None:
    known = set(Job.objects.values_list("name", flat=True))
    now = timezone.now()
    missing = [Job(name=periodic.name, due_at=now) for periodic in wanted if periodic.name not in known]
    if missing:
        Job.objects.bulk_create(missing, ignore_conflicts=True)


def _claim(periodic: Periodic) -> Job | None:
    """The job's row under a lease of ours. One UPDATE decides between processes: the loser matches no row."""
    now, me = timezone.now(), f"{socket.gethostname()[:60]}:{os.getpid()}:{threading.get_ident()}:"
    # Later than it was ever put: the clock stepped back. Waiting for that hour to come would stop the job.
    never_due = now + timedelta(seconds=max(LONGEST_BACKOFF_SECONDS, 2 * periodic.every_seconds))
    never_leased = now + timedelta(seconds=2 * LEASE_SECONDS)
    rows = Job.objects.filter(
        Q(due_at__lte=now) | Q(due_at__gt=never_due),
        Q(leased_until=None)
        | Q(leased_until__lte=now)
        | Q(leased_until__gt=never_leased)
        | Q(lease_owner__startswith=me),  # kept since the database went away during a run of ours
        name=periodic.name,
    )
    if not rows.exists():  # mostly: and a look writes nothing
        return None
    owner = f"{me}{secrets.token_hex(6)}"
    if not rows.update(leased_until=now + timedelta(seconds=LEASE_SECONDS), lease_owner=owner):
        return None
    return Job.objects.filter(name=periodic.name, lease_owner=owner).first()


def _run(periodic: Periodic, row: Job) -> None:
    remembered = {name: value for name, value in row.state.items() if name != FAILURES}
    started = time.monotonic()
    _here.deadline = started + RUN_SECONDS
    try:
        more = bool(periodic.run(remembered))
    except Exception as error:  # noqa: BLE001 - logged, kept in its row, and tried again
        _end_badly(periodic, row, error)
        return
    finally:
        del _here.deadline
    pause = 0.0 if more else max(periodic.every_seconds, periodic.rests * (time.monotonic() - started))
    _end(row, pause, last_error="", state=remembered)


def _end_badly(periodic: Periodic, row: Job, error: Exception) -> None:
    failures = int(row.state.get(FAILURES, 0)) + 1
    pause = backoff(periodic.every_seconds, failures)
    logger.error("job %s failed, next try in %.0f s", periodic.name, pause, exc_info=error)
    problem = f"{type(error).__name__}: {error}"[:300]
    _end(row, pause, last_error=problem, state=row.state | {FAILURES: failures})


def backoff(every_seconds: float, failures: int) -> float:
    """Seconds until the next try after `failures` in a row."""
    return min(every_seconds * float(2 ** min(failures, 20)), max(every_seconds, LONGEST_BACKOFF_SECONDS))


def _end(row: Job, pause: float, *, last_error: str, state: JSON) -> None:
    """Give the lease back. Whoever lost it meanwhile changes nothing: the row is another's."""
    now: datetime = timezone.now()
    Job.objects.filter(pk=row.pk, lease_owner=row.lease_owner).update(
        due_at=now + timedelta(seconds=pause),
        leased_until=None,
        lease_owner="",
        last_ended_at=now,
        last_error=last_error,
        state=state,
    )
