"""Taking cached answers away: at once, on every process, rows and all."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.signals import pre_delete

from completions.cache import index, stores
from completions.models import CachedResponse, Project

BATCH = 500
MOST_TOLD = 1000  # keys: every look into Redis reads them for a while


class Meant(Protocol):
    """Answers that are to go."""

    def queryset(self) -> QuerySet[CachedResponse]: ...

    def told(self) -> dict[str, Any]:
        """As processes tell each other: by origin, or by the keys of what is there."""


def told_keys(rows: QuerySet[CachedResponse]) -> dict[str, Any]:
    """`Meant.told` by keys. There are rows of them: this is for answers that are just being written anew."""
    return {"keys": list(islice(rows.values_list("key", flat=True).iterator(), MOST_TOLD))}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which answers: everything that is set must fit. Nothing set: all of them."""

    project_id: int | None = None
    api_key_id: int | None = None
    provider: str | None = None
    model: str | None = None  # as callers name it
    end_user: str | None = None
    rows: tuple[int, ...] | None = None  # of CachedResponse

    def queryset(self) -> QuerySet[CachedResponse]:
        found = {
            "project_id": self.project_id,
            "api_key_id": self.api_key_id,
            "provider_slug": self.provider,
            "model": self.model,
            "end_user": self.end_user,
            "pk__in": self.rows,
        }
        return CachedResponse.objects.filter(
            **{name: value for name, value in found.items() if value is not None}
        )

    def told(self) -> dict[str, Any]:
        """As `Meant`."""
        if self.end_user is not None or self.rows is not None:
            return told_keys(self.queryset())
        origin = {
            "project_id": self.project_id,
            "api_key_id": self.api_key_id,
            "provider": self.provider,
            "public_model": self.model,
        }
        return {name: value for name, value in origin.items() if value is not None}


def purge(selection: Meant) -> int:
    """Forget cached answers; how many there were. No process gives any of them from now on.

    Raises UnavailableError while they cannot be forgotten: then their rows stay, too.
    """
    index.flush()
    stores.tell_purge(selection.told())
    stores.purged()  # before and after: rows that are just being written look whether there was one
    count = 0
    while found := dict(selection.queryset().order_by("pk").values_list("pk", "key")[:BATCH]):
        stores.drop_now(found.values())
        CachedResponse.objects.filter(pk__in=list(found)).delete()
        count += len(found)
    stores.purged()
    return count


def _project_goes(instance: Project, **_: Any) -> None:
    """Its rows go with it; its answers must not stay where projects of its group find them.

    They go when the transaction is committed, for it may be undone. Raises UnavailableError while they could
    not: then the project stays, too.
    """
    stores.reach()
    Project.objects.select_for_update().filter(pk=instance.pk).first()  # no row comes after those that go
    meant = Selection(project_id=instance.pk)
    keys = list(meant.queryset().values_list("key", flat=True))

    def gone() -> None:
        purge(meant)
        stores.drop_now(keys)

    transaction.on_commit(gone)


pre_delete.connect(_project_goes, sender=Project, dispatch_uid="cache-project-goes")
