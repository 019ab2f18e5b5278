"""API keys: made here, shown once in the answer to the form, revoked here, never deleted."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from completions import keys
from completions.errors import UnavailableError
from completions.models import ApiKey
from providers.admin.base import HubModelAdmin, badge, detail_action
from providers.types import Secret


def state_badge(key: ApiKey) -> SafeString:
    if key.revoked_at is not None:
        return badge("danger", "Revoked")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        return badge("warning", "Expired")
    return badge("success", "Active")


class KeyStateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        expired = Q(expires_at__lte=timezone.now())
        conditions = {
            "active": Q(revoked_at=None) & ~expired,
            "expired": Q(revoked_at=None) & expired,
            "revoked": Q(revoked_at__isnull=False),
        }
        return queryset.filter(conditions.get(str(self.value()), Q()))


@admin.register(ApiKey)
class ApiKeyAdmin(HubModelAdmin):
    list_display = ("name", "project", "ends_in", "state", "last_used_at", "expires_at", "created_at")
    list_filter = (KeyStateFilter, "project")
    list_select_related = ("project",)
    search_fields = ("name", "project__slug", "project__name", "=public_id")
    search_help_text = "Name, project, or the 12 characters after sk-llmhub-"
    autocomplete_fields = ("project",)
    readonly_fields = ("ends_in", "public_id", "state", "last_used_at", "created_at", "revoked_at")
    actions = ("revoke_selected",)
    actions_detail = ("revoke",)

    class Media:
        js = ("providers/post_actions.js",)

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        asked = (None, {"fields": ["project", "name", "expires_at"]})
        shown = [("ends_in", "public_id"), ("state", "last_used_at"), ("created_at", "revoked_at")]
        return [asked, ("This key", {"fields": shown})] if obj else [asked]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return ("project", *self.readonly_fields) if obj else self.readonly_fields

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its calls must stay attributable: revoke it instead

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        row, full_key = keys.create_key(obj.project, obj.name, expires_at=obj.expires_at)
        obj.pk = row.pk
        obj.refresh_from_db()
        request.new_key = Secret(full_key)  # type: ignore[attr-defined] # for response_add, within this request

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        try:
            answer: HttpResponse = super().add_view(request, form_url, extra_context)
        except UnavailableError as error:
            messages.error(request, str(error))
            request.method = "GET"
            answer = super().add_view(request, form_url, extra_context)
        return answer

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        """The key itself, in this answer only: not in the URL, a cookie, the session or any cache."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"API key “{obj.name}” was made",
            "opts": self.opts,
            "key": obj,
            "full_key": request.new_key.reveal(),  # type: ignore[attr-defined]
            "host": request.build_absolute_uri("/").rstrip("/"),
        }
        answer = TemplateResponse(request, "admin/completions/apikey/made.html", context)
        answer["Cache-Control"] = "no-store"
        answer["Referrer-Policy"] = "no-referrer"
        return answer

    @admin.display(description="Ends in")
    def ends_in(self, key: ApiKey) -> str:
        return f"…{key.last4}"

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        return state_badge(key)

    @detail_action("Revoke", icon="block", permission="change", variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def run(key: ApiKey) -> tuple[int, str]:
            return messages.SUCCESS, self._revoked(request, key)

        question = "Revoke this key? Whatever uses it is refused within a second, and for good."
        return self.ask_or_run(request, object_id, question, run)

    @admin.action(description="Revoke selected keys, for good", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        for key in chosen:
            messages.success(request, self._revoked(request, key))

    def _revoked(self, request: HttpRequest, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return f"{key} was revoked before."
        keys.revoke(key)
        self.log_change(request, key, "Revoked.")
        return f"{key} is revoked: calls with it are refused from now on."
