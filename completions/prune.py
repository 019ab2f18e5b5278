"""Retention: contents and cached answers past their date, answers beyond LLMHUB_CACHE_STORED_BYTES, and calls
older than LLMHUB_LEDGER_DAYS; in small transactions.

Calls go in the order they came, project by project, up to a mark that is committed before the first of them
(`Project.ledger_since`): sums before the mark are never made anew. The mark never passes
- a call that still runs,
- an hour whose sums are not made, with every correction in them,
- the beginning of a budget's period that has not ended. A budget without end (`total`) so keeps every call
  since it was made.
With the calls go their attempts, charges, corrections and contents, and the budgets' periods that ended
before the mark. Sums stay.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Min, QuerySet
from django.utils import timezone

from completions import rollups
from completions.cache import keeping, retention
from completions.ids import first_id
from completions.jobs import job, time_left
from completions.models import BudgetWindow, Completion, CompletionContent, Project, State
from providers.types import JSON

BATCH = 900  # rows of one transaction; old SQLite takes 999 parameters
REST_SECONDS = 0.05  # between two, for the ledger to commit
MARGIN = timedelta(days=1)  # between a period's beginning and its first call, if a clock stepped back


@dataclass(frozen=True, slots=True)
class Pruned:
    """Rows that went, or that would go."""

    contents: int = 0
    calls: int = 0
    windows: int = 0
    answers: int = 0  # of the cache

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@job("prune", every_seconds=3600)
def prune_job(state: JSON) -> bool:
    """Prune for as long as a run may take."""
    return any(not time_left() for _ in prune())


def prune() -> Iterator[Pruned]:
    """Delete what is due; yields after each committed batch. May be stopped and begun again at any time."""
    now = timezone.now()
    for count in _delete(_expired(now)):
        yield Pruned(contents=count)
    for project, mark in _marks(now):
        if project.ledger_since is None or mark > project.ledger_since:  # committed before any call goes
            Project.objects.filter(pk=project.pk).update(ledger_since=mark)
        for count in _delete(_calls(project, mark)):
            yield Pruned(calls=count)
        for count in _delete(_windows(project, mark)):
            yield Pruned(windows=count)
    for count in retention.prune():
        yield Pruned(answers=count)
    keeping.restore()


def due() -> Pruned:
    """What `prune` would delete now."""
    now = timezone.now()
    marks = list(_marks(now))
    return Pruned(
        contents=_expired(now).count(),
        calls=sum(_calls(project, mark).count() for project, mark in marks),
        windows=sum(_windows(project, mark).count() for project, mark in marks),
        answers=retention.due(),
    )


def _delete(rows: QuerySet[Any]) -> Iterator[int]:
    while chosen := list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        rows.filter(pk__in=chosen).delete()
        yield len(chosen)
        time.sleep(REST_SECONDS)


def _expired(now: datetime) -> QuerySet[CompletionContent]:
    return CompletionContent.objects.filter(expires_at__lte=now)


def _calls(project: Project, mark: datetime) -> QuerySet[Completion]:
    """Found by the index of a project's calls: ids are ordered by time."""
    calls = Completion.objects.filter(project=project, pk__lt=first_id(mark), created_at__lt=mark)
    return calls.exclude(state=State.RUNNING)


def _windows(project: Project, mark: datetime) -> QuerySet[BudgetWindow]:
    return BudgetWindow.objects.filter(budget__project=project, ends_at__lte=mark)


def _marks(now: datetime) -> Iterator[tuple[Project, datetime]]:
    """Each project, and the hour before which no call of it is needed any more; none where calls are kept."""
    days, summed = settings.LLMHUB_LEDGER_DAYS, rollups.complete_until()
    if not days or summed is None:
        return
    latest = min(now - timedelta(days=days), summed)
    for project in Project.objects.order_by("pk"):
        mark = min([latest, *_needed_since(project, now)])
        yield project, mark.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _needed_since(project: Project, now: datetime) -> list[datetime]:
    """Since when calls of the project are needed, by each reason there is."""
    running = Completion.objects.filter(project=project, state=State.RUNNING)
    windows = BudgetWindow.objects.filter(budget__project=project)
    firsts = (
        running.aggregate(first=Min("created_at")),
        windows.filter(ends_at__gt=now - MARGIN).aggregate(first=Min("starts_at")),
        windows.filter(ends_at=None).aggregate(first=Min("budget__created_at")),
    )
    return [found["first"] - MARGIN for found in firsts if found["first"] is not None]
