"""Filters of the list of cached responses, each cheap: a name that is configured, or a time by its index."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from completions.models import CachedResponse
from providers.admin.base import badge
from providers.models import LanguageModel, LLMProvider
from providers.types import Operation

OPERATIONS = {
    Operation.CHAT: "Chat",
    Operation.COMPLETION: "Completion (older wire)",
    Operation.EMBEDDING: "Embedding",
}


def standing_badge(row: CachedResponse) -> SafeString:
    """Whether it is given: fresh, stale, not any more; or pinned."""
    now = timezone.now()
    if row.pinned:
        return badge("info", "Pinned")
    if row.expires_at > now:
        return badge("success", "Fresh")
    return badge("warning", "Stale") if row.stale_until > now else badge("", "Expired")


class StandingFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("fresh", "Fresh"), ("stale", "Stale"), ("expired", "Expired"), ("pinned", "Pinned")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[CachedResponse]) -> QuerySet[CachedResponse]:
        now = timezone.now()
        conditions = {
            "fresh": Q(pinned=False, expires_at__gt=now),
            "stale": Q(pinned=False, expires_at__lte=now, stale_until__gt=now),
            "expired": Q(pinned=False, stale_until__lte=now),
            "pinned": Q(pinned=True),
        }
        return queryset.filter(conditions.get(str(self.value()), Q()))


class NameFilter(admin.SimpleListFilter):
    """By a name that is configured: looking for those that occur would read every row."""

    column: ClassVar[str]

    def queryset(self, request: HttpRequest, queryset: QuerySet[CachedResponse]) -> QuerySet[CachedResponse]:
        return queryset.filter(**{self.column: self.value()}) if self.value() else queryset


class ModelFilter(NameFilter):
    title = "model"
    parameter_name = column = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = LanguageModel.objects.order_by("public_name").values_list("public_name", flat=True).distinct()
        return [(name, name) for name in names]


class ProviderFilter(NameFilter):
    title = "provider"
    parameter_name = "provider"
    column = "provider_slug"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(row.slug, str(row)) for row in LLMProvider.objects.order_by("slug")]


class OperationFilter(NameFilter):
    title = "kind"
    parameter_name = column = "operation"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind.value, name) for kind, name in OPERATIONS.items()]
