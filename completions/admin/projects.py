"""Projects: who belongs to them, their budgets and their keys."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString

from completions.admin.api_keys import state_badge
from completions.admin.budgets import BudgetInline, new_budget_url
from completions.errors import UnavailableError
from completions.models import ApiKey, Budget, CachedResponse, Project
from providers.admin.base import HubModelAdmin, ReadOnlyInline, detail_action


class ApiKeyInline(ReadOnlyInline):
    model = ApiKey
    fields = readonly_fields = ("name", "ends_in", "state", "last_used_at", "expires_at", "created_at")
    hide_title = True
    verbose_name_plural = "API keys"

    @admin.display(description="Ends in")
    def ends_in(self, key: ApiKey) -> str:
        return f"…{key.last4}"

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        return state_badge(key)


@admin.register(Project)
class ProjectAdmin(HubModelAdmin):
    inlines: ClassVar[list[type]] = [BudgetInline, ApiKeyInline]
    list_display = ("name", "slug", "live_keys", "enabled", "created_at")
    list_display_links = ("name", "slug")
    list_filter = ("enabled",)
    search_fields = ("slug", "name")
    autocomplete_fields = ("members",)
    actions_detail = ("new_key", "new_budget")
    fieldsets = (
        (None, {"fields": [("name", "slug"), "members", ("time_zone", "content_days"), "enabled"]}),
        ("Cache", {"fields": [("cache_scope", "cache_group")]}),
    )

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, tuple[str, ...]]:
        return {} if obj else {"slug": ("name",)}

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[type]:
        return self.inlines if obj else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Project]:
        rows: QuerySet[Project] = super().get_queryset(request)
        return rows.annotate(keys_live=Count("keys", filter=Q(keys__revoked_at=None)))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        # They are not deleted by themselves on their pages, but with a project that paid for nothing.
        with_it = {model._meta.verbose_name for model in (ApiKey, Budget, CachedResponse)}
        return to_delete, counts, lacking - with_it, protected

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            deleted: HttpResponse = super().delete_view(request, *args, **kwargs)
            return deleted
        except UnavailableError as error:
            return self._kept(request, error)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            shown: HttpResponse = super().changelist_view(request, *args, **kwargs)
            return shown
        except UnavailableError as error:
            return self._kept(request, error)

    def _kept(self, request: HttpRequest, error: UnavailableError) -> HttpResponse:
        """Answers that cannot be forgotten now would be given again: their project stays as well."""
        messages.error(request, f"Nothing was deleted. {error}")
        return HttpResponseRedirect(request.get_full_path())

    @admin.display(description="Keys in use", ordering="keys_live")
    def live_keys(self, project: Any) -> int:
        return int(project.keys_live)

    @detail_action("New budget", icon="savings", permission="new_budget")
    def new_budget(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(new_budget_url("project", object_id))

    def has_new_budget_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("completions.add_budget"))

    @detail_action("New API key", icon="key", permission="new_key")
    def new_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(f"{reverse('admin:completions_apikey_add')}?project={int(object_id)}")

    def has_new_key_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        # A permission named with a dot would make unfold's system check read a database not yet migrated.
        return bool(request.user.has_perm("completions.add_apikey"))
