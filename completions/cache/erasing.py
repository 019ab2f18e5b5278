"""Erasing what people wrote: the contents of calls, and the cached answers in which it would live on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db.models import Exists, OuterRef, Q, QuerySet

from completions import content
from completions.cache.purge import BATCH, purge, told_keys
from completions.cache.retold import keys_of
from completions.content import Scope
from completions.models import CachedResponse


class Erased(NamedTuple):
    """How many contents of calls, and how many cached answers."""

    contents: int
    answers: int

    def __add__(self, other: object) -> "Erased":
        assert isinstance(other, Erased)  # noqa: S101 - a tuple's own + would join them
        return Erased(self.contents + other.contents, self.answers + other.answers)


def erase(scope: Scope) -> Erased:
    """Erase both. Calls that still run write theirs when they end. Raises UnavailableError, as `purge`.

    Cached answers go first: which of them are meant is also found by what the contents say. While they
    cannot, contents stay as well.
    """
    answers = purge(_Traces(scope))
    if scope:  # else it was all of them
        answers += sum(purge(_Named(tuple(keys))) for keys in _keys(scope))
    return Erased(content.erase(scope), answers)


def _keys(scope: Scope) -> Iterator[list[str]]:
    """Of answers that calls of the scope asked for; others may have fetched them anew since."""
    asked = scope.rows().filter(completion__cache__gt="").select_related("completion").order_by("pk")
    keys: list[str] = []
    for one in asked.iterator(chunk_size=BATCH):
        keys += keys_of(one.completion, one)
        if len(keys) >= BATCH:
            yield keys
            keys = []
    if keys:
        yield keys


@dataclass(frozen=True, slots=True)
class _Named:
    """Cached answers by their keys."""

    keys: tuple[str, ...]

    def queryset(self) -> QuerySet[CachedResponse]:
        return CachedResponse.objects.filter(key__in=self.keys)

    def told(self) -> dict[str, Any]:
        return told_keys(self.queryset())


def found(scope: Scope) -> Erased:
    """What `erase` would erase now."""
    return Erased(scope.rows().count(), _Traces(scope).queryset().count())


@dataclass(frozen=True, slots=True)
class _Traces:
    """Cached answers that a call of the scope brought, or was given: their requests are its own."""

    scope: Scope

    def queryset(self) -> QuerySet[CachedResponse]:
        calls = self.scope.calls()
        brought = Exists(calls.filter(pk=OuterRef("completion_id")))
        given = Exists(calls.filter(cached_from=OuterRef("completion_id")))
        return CachedResponse.objects.filter(self._by_origin() | Q(brought) | Q(given))

    def told(self) -> dict[str, Any]:
        return told_keys(self.queryset())

    def _by_origin(self) -> Q:
        """By what the rows themselves say: their calls may have been pruned."""
        scope = self.scope
        if scope.request_id is not None or scope.completions is not None:
            return Q(pk__in=())
        found = {
            "project__slug": scope.project,
            "api_key_id": scope.api_key,
            "end_user": scope.end_user,
            "created_at__lt": scope.before,
        }
        set_ones = {name: value for name, value in found.items() if value is not None}
        return Q(**set_ones) if set_ones else ~Q(pk__in=())
