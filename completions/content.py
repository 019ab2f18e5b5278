"""Prompts and answers: how they are written down, for how long, and how they are taken out again.

They lie in a table of their own. Erasing them leaves the ledger's rows, with tokens and money, as they are.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import timezone

from completions.models import CompletionContent

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
        found = {
            "completion__project__slug": self.project,
            "completion__api_key_id": self.api_key,
            "completion__end_user": self.end_user,
            "completion__request_id": self.request_id,
            "pk__in": self.completions,
            "completion__created_at__lt": self.before,
        }
        return CompletionContent.objects.filter(
            **{name: value for name, value in found.items() if value is not None}
        )


def erase(scope: Scope, *, batch: int = BATCH) -> int:
    """Delete contents in bounded batches, each committed by itself; how many went.

    Calls that still run write theirs when they end.
    """
    erased = 0
    while chosen := list(scope.rows().order_by("pk").values_list("pk", flat=True)[:batch]):
        CompletionContent.objects.filter(pk__in=chosen).delete()
        erased += len(chosen)
    return erased
