"""API keys: made and rotated here, each time shown once; revoked here, never deleted."""

from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from completions import keys
from completions.admin.account_forms import KeyForm
from completions.admin.budgets import BudgetInline, new_budget_url
from completions.errors import InvalidRequestError, UnavailableError
from completions.models import ApiKey
from providers.admin.base import HubModelAdmin, badge, detail_action
from providers.types import Secret

OVERLAPS = {  # hours, as the form sends them
    "0": ("It stops at once", timedelta(0)),
    "1": ("One hour", timedelta(hours=1)),
    "24": ("One day", timedelta(days=1)),
    "168": ("One week", timedelta(weeks=1)),
    "720": ("30 days", timedelta(days=30)),
}
USUAL_OVERLAP = "24"
NAMES_SHOWN = 2


def is_rotating(key: ApiKey) -> bool:
    """The secret from before a rotation still works."""
    return key.old_valid_until is not None and key.old_valid_until > timezone.now()


def state_badge(key: ApiKey) -> SafeString:
    if key.revoked_at is not None:
        return badge("danger", "Revoked")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        return badge("warning", "Expired")
    return badge("success", "Active", "being rotated" if is_rotating(key) else "")


def limits_text(key: ApiKey) -> str:
    """The limits of a key in few words."""
    limits = (
        (key.requests_per_minute, "requests/min"),
        (key.tokens_per_minute, "tokens/min"),
        (key.concurrent_calls, "at once"),
    )
    return ", ".join(f"{limit:,} {unit}" for limit, unit in limits if limit is not None) or "-"


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
    form = KeyForm
    inlines: ClassVar[list[type]] = [BudgetInline]
    list_display = ("name", "project", "ends_in", "state", "limits", "may_call", "last_used_at", "expires_at")
    list_filter = (KeyStateFilter, "project")
    list_select_related = ("project",)
    search_fields = ("name", "project__slug", "project__name", "=public_id")
    search_help_text = "Name, project, or the 12 characters after sk-llmhub-"
    autocomplete_fields = ("project",)
    readonly_fields = (
        "ends_in", "public_id", "state", "last_used_at", "created_at", "revoked_at", "old_until",
    )  # fmt: skip
    actions = ("revoke_selected",)
    actions_detail = ("rotate", "new_budget", "revoke")

    class Media:
        js = ("providers/post_actions.js",)

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        asked = (None, {"fields": ["project", "name", "expires_at"]})
        limits = ("requests_per_minute", "tokens_per_minute", "concurrent_calls")
        may = ("What it may do", {"fields": ["allowed_models", limits, ("log_content", "cache_mode")]})
        if obj is None:
            return [asked, may]
        shown: list[Any] = [("ends_in", "public_id"), ("state", "last_used_at"), ("created_at", "revoked_at")]
        if obj.old_valid_until is not None:
            shown.append("old_until")
        return [asked, may, ("This key", {"fields": shown})]

    def get_inlines(self, request: HttpRequest, obj: ApiKey | None) -> list[type]:
        return self.inlines if obj else []

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return ("project", *self.readonly_fields) if obj else self.readonly_fields

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its calls must stay attributable: revoke it instead

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=[name for name in form.changed_data if name in form.fields])
            return
        made = Secret(keys.issue(obj))
        request.new_key = made  # type: ignore[attr-defined] # for response_add, within this request

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        try:
            answer: HttpResponse = super().add_view(request, form_url, extra_context)
        except UnavailableError as error:
            messages.error(request, str(error))
            request.method = "GET"
            answer = super().add_view(request, form_url, extra_context)
        return answer

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        return self._shown_once(request, obj, request.new_key, "was made")  # type: ignore[attr-defined]

    def _shown_once(self, request: HttpRequest, key: ApiKey, secret: Secret, what: str) -> HttpResponse:
        """The key itself, in this answer only: not in the URL, a cookie, the session or any cache."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"API key “{key.name}” {what}",
            "opts": self.opts,
            "key": key,
            "full_key": secret.reveal(),
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

    @admin.display(description="Limits")
    def limits(self, key: ApiKey) -> str:
        return limits_text(key)

    @admin.display(description="Models")
    def may_call(self, key: ApiKey) -> str:
        names = [str(name) for name in key.allowed_models]
        more = len(names) - NAMES_SHOWN
        return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "") or "All"

    @admin.display(description="The secret before works until")
    def old_until(self, key: ApiKey) -> datetime | None:
        return key.old_valid_until

    @detail_action("Rotate", icon="autorenew", permission="change")
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks how long the old secret shall work on; what answers shows the new one, once."""
        key = self.get_object(request, unquote(object_id))
        if key is None:
            raise Http404(f"There is no API key {object_id}.")
        chosen = OVERLAPS.get(request.POST.get("overlap", ""))
        if request.method != "POST" or chosen is None:
            question = "Give this key a new secret? Its limits, its budgets and what it has paid for stay."
            context = self.asking(request, key, question)
            context |= {"overlaps": OVERLAPS.items(), "usual": USUAL_OVERLAP, "rotating": is_rotating(key)}
            return TemplateResponse(request, "admin/completions/apikey/rotate.html", context)
        try:
            secret = Secret(keys.rotate(key, chosen[1]))
        except (InvalidRequestError, UnavailableError) as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(self.change_url(key))
        self.log_change(request, key, "Rotated.")
        return self._shown_once(request, key, secret, "has a new secret")

    @detail_action("New budget", icon="savings", permission="new_budget")
    def new_budget(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(new_budget_url("api_key", object_id))

    def has_new_budget_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("completions.add_budget"))

    @detail_action("Revoke", icon="block", permission="change", variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def run(key: ApiKey) -> tuple[int, str]:
            return messages.SUCCESS, self._revoked(request, key)

        question = "Revoke this key for good? Whatever uses it is refused at once, and its running calls end."
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
