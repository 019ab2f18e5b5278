"""Prompts and answers: how they are written down, for how long, and how they are taken out again.

They lie in a table of their own. Erasing them leaves the ledger's rows, with tokens and money, as they are,
but for the messages of errors: an upstream may quote the prompt in them.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from completions.models import Attempt, Completion, CompletionContent

BATCH = 1000  # rows of one DELETE: no long lock, no large transaction


def expires_at(days: int, now: datetime | None = None) -> datetime:
    """When content written now shall be gone."""
    return (now or timezone.now()) + timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose content: everything that is set must fit. Nothing set: all of it."""

    project: str | None = None  # slug
    api_key: int | None = None
    end_user: str | None = None
    request_id: str | None = None
    completions: Collection[uuid.UUID] | None = None
    before: datetime | None = None  # calls made before it

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))

    def rows(self) -> QuerySet[CompletionContent]:
        return CompletionContent.objects.filter(**self._columns("completion__"))

    def attempts(self) -> QuerySet[Attempt]:
        """The upstream calls made for them."""
        return Attempt.objects.order_by().filter(**self._columns("completion__"))

    def calls(self) -> QuerySet[Completion]:
        """The calls themselves, with content or without."""
        return Completion.objects.order_by().filter(**self._columns(""))

    def _columns(self, call: str) -> dict[str, Any]:
        found = {
            f"{call}project__slug": self.project,
            f"{call}api_key_id": self.api_key,
            f"{call}end_user": self.end_user,
            f"{call}request_id": self.request_id,
            f"{call}pk__in": self.completions,
            f"{call}created_at__lt": self.before,
        }
        return {name: value for name, value in found.items() if value is not None}


def erase(scope: Scope, *, batch: int = BATCH) -> int:
    """Delete contents in bounded batches, each committed by itself; how many went.

    The messages of errors go with them, also of calls whose content was never kept. Calls that still run
    write theirs when they end.
    """
    erased = 0
    while chosen := list(scope.rows().order_by("pk").values_list("pk", flat=True)[:batch]):
        CompletionContent.objects.filter(pk__in=chosen).delete()
        erased += len(chosen)
    _blank(scope.calls(), batch)
    _blank(scope.attempts(), batch)
    return erased


def _blank(rows: QuerySet[Any], batch: int) -> None:
    """Take out the messages of errors; code, status and money stay."""
    told = rows.exclude(error_message="").order_by("pk").values_list("pk", flat=True)
    chosen = list(told[:batch])
    while chosen:
        rows.model._default_manager.filter(pk__in=chosen).update(error_message="")
        chosen = list(told.filter(pk__gt=chosen[-1])[:batch])
