"""Projects: who belongs to them, and their keys."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString

from completions.admin.api_keys import state_badge
from completions.models import ApiKey, Project
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
    inlines: ClassVar[list[type]] = [ApiKeyInline]
    list_display = ("name", "slug", "live_keys", "enabled", "created_at")
    list_display_links = ("name", "slug")
    list_filter = ("enabled",)
    search_fields = ("slug", "name")
    autocomplete_fields = ("members",)
    actions_detail = ("new_key",)
    fieldsets = ((None, {"fields": [("name", "slug"), "members", "enabled"]}),)

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, tuple[str, ...]]:
        return {} if obj else {"slug": ("name",)}

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[type]:
        return self.inlines if obj else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Project]:
        rows: QuerySet[Project] = super().get_queryset(request)
        return rows.annotate(keys_live=Count("keys", filter=Q(keys__revoked_at=None)))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        # Keys are never deleted by themselves, but they go with a project that has paid for nothing yet.
        return to_delete, counts, lacking - {ApiKey._meta.verbose_name}, protected

    @admin.display(description="Keys in use", ordering="keys_live")
    def live_keys(self, project: Any) -> int:
        return int(project.keys_live)

    @detail_action("New API key", icon="key", permission="new_key")
    def new_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(f"{reverse('admin:completions_apikey_add')}?project={int(object_id)}")

    def has_new_key_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        # A permission named with a dot would make unfold's system check read a database not yet migrated.
        return bool(request.user.has_perm("completions.add_apikey"))
