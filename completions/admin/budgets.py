"""Budgets: where each stands, what it did in earlier periods, and the alerts it raised."""

from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString

from completions.admin.account_forms import BudgetForm
from completions.admin.amounts import exact_dollars
from completions.admin.standing import bar, current_span, with_open_windows
from completions.models import Budget, BudgetAlert, BudgetWindow
from completions.models.budgets import PERIODS
from completions.periods import Period
from providers.admin.base import HubModelAdmin, ReadOnlyInline, badge

WINDOWS_SHOWN = 30
ALERTS_SHOWN = 30
FIXED = (
    "project",
    "api_key",
    "per_end_user",
    "period",
)  # what was charged would otherwise mean something else


def kind_badge(budget: Budget) -> SafeString:
    """What it does: refuse, alert or nothing."""
    if not budget.enabled:
        return badge("", "Disabled")
    return badge("danger", "Hard", "refuses") if budget.hard else badge("info", "Soft", "alerts only")


def owner(budget: Budget) -> str:
    whose = f"{budget.project}: key {budget.api_key.name}" if budget.api_key else str(budget.project)
    return f"{whose}, each end user" if budget.per_end_user else whose


def period_text(budget: Budget) -> str:
    return PERIODS[Period(budget.period)]


def new_budget_url(owner: str, object_id: str) -> str:
    """The form of a new budget of a project or api_key."""
    return f"{reverse('admin:completions_budget_add')}?{owner}={int(object_id)}"


class BudgetInline(ReadOnlyInline):
    """The budgets of a project or key, on its page."""

    model = Budget
    fields = readonly_fields = ("whose", "now", "period_text", "kind")
    hide_title = True
    verbose_name_plural = "Budgets"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Budget]:
        return with_open_windows(super().get_queryset(request))

    @admin.display(description="Whose")
    def whose(self, budget: Budget) -> SafeString:
        return render_to_string(
            "admin/completions/budget/link.html", {"budget": budget, "text": owner(budget)}
        )

    @admin.display(description="This period")
    def now(self, budget: Budget) -> SafeString:
        return bar(budget)

    @admin.display(description="Period")
    def period_text(self, budget: Budget) -> str:
        return period_text(budget)

    @admin.display(description="Kind")
    def kind(self, budget: Budget) -> SafeString:
        return kind_badge(budget)


@admin.register(Budget)
class BudgetAdmin(HubModelAdmin):
    form = BudgetForm
    change_form_after_template = "admin/completions/budget/history.html"
    list_display = ("whose", "now", "period_text", "kind", "alerts_at")
    list_filter = ("period", "hard", "enabled", "per_end_user", "project")
    search_fields = ("project__slug", "project__name", "api_key__name")
    search_help_text = "Project or key"
    autocomplete_fields = ("project", "api_key")
    readonly_fields = ("now", "current_period", "created_at")
    ordering = ("project__slug", "api_key__name", "period")
    actions = None

    def get_fieldsets(self, request: HttpRequest, obj: Budget | None = None) -> Any:
        now = [("Now", {"fields": ["now", "current_period"]})] if obj else []
        whose = {
            "fields": [("project", "api_key"), "per_end_user"],
            "description": "" if obj else "Whose it is and its period stay as they are made here.",
        }
        return [
            *now,
            ("Whose", whose),
            ("How much", {"fields": [("amount", "period"), ("hard", "enabled")]}),
            ("Alerts", {"fields": ["thresholds", ("webhook_url", "webhook_secret")]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Budget | None = None) -> tuple[str, ...]:
        return (*FIXED, *self.readonly_fields) if obj else self.readonly_fields

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """`?project=1` or `?api_key=1` of the links that lead here."""
        return {name: value for name, value in request.GET.items() if name in FIXED}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Budget]:
        rows: QuerySet[Budget] = super().get_queryset(request)
        return with_open_windows(rows)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # What was charged to it goes with it: such a budget is disabled instead.
        unused = obj is None or not obj.windows.exists()
        return unused and bool(super().has_delete_permission(request, obj))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        budget = self.get_object(request, object_id)
        history = {} if budget is None else _history(budget)
        answer: HttpResponse = super().change_view(
            request, object_id, form_url, {**history, **(extra_context or {})}
        )
        return answer

    @admin.display(description="Whose", ordering="project__slug")
    def whose(self, budget: Budget) -> str:
        return owner(budget)

    @admin.display(description="This period")
    def now(self, budget: Budget) -> SafeString:
        return bar(budget)

    @admin.display(description="Begins and ends")
    def current_period(self, budget: Budget) -> str:
        span = current_span(budget)
        if span.end is None:
            return "Never anew"
        zone = ZoneInfo(budget.project.time_zone)
        first, last = span.start.astimezone(zone), span.end.astimezone(zone)
        return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} ({zone})"

    @admin.display(description="Period", ordering="period")
    def period_text(self, budget: Budget) -> str:
        return period_text(budget)

    @admin.display(description="Kind", ordering="hard")
    def kind(self, budget: Budget) -> SafeString:
        return kind_badge(budget)

    @admin.display(description="Alerts at")
    def alerts_at(self, budget: Budget) -> str:
        marks = ", ".join(f"{mark} %" for mark in budget.thresholds)
        return f"{marks} + webhook" if marks and budget.webhook_url else marks or "-"


def _history(budget: Budget) -> dict[str, Any]:
    zone = ZoneInfo(budget.project.time_zone)
    windows = list(budget.windows.order_by("-starts_at", "-spent_nano")[: WINDOWS_SHOWN + 1])
    alerts = BudgetAlert.objects.filter(window__budget=budget).select_related("window")[:ALERTS_SHOWN]
    return {
        "windows": [_window_line(window, zone) for window in windows[:WINDOWS_SHOWN]],
        "more_windows": len(windows) > WINDOWS_SHOWN,
        "alerts": [_alert_line(alert, zone) for alert in alerts],
    }


def _window_line(window: BudgetWindow, zone: ZoneInfo) -> dict[str, Any]:
    ends = window.ends_at
    return {
        "from": "The beginning" if ends is None else f"{window.starts_at.astimezone(zone):%Y-%m-%d %H:%M}",
        "to": "-" if ends is None else f"{ends.astimezone(zone):%Y-%m-%d %H:%M}",
        "subject": window.subject,
        "spent": exact_dollars(window.spent_nano),
        "held": exact_dollars(window.held_nano),
    }


def _alert_line(alert: BudgetAlert, zone: ZoneInfo) -> dict[str, Any]:
    who = alert.window.subject
    kind = "danger" if alert.threshold >= 100 else "warning"
    return {
        "when": f"{alert.created_at.astimezone(zone):%Y-%m-%d %H:%M}",
        "badge": badge(kind, f"{alert.threshold} %", who),
        "spent": f"{exact_dollars(alert.spent_nano)} of {exact_dollars(alert.amount_nano)}",
        "webhook": _delivery(alert, zone),
    }


def _delivery(alert: BudgetAlert, zone: ZoneInfo) -> str:
    if alert.delivered_at is not None:
        return f"Delivered {alert.delivered_at.astimezone(zone):%Y-%m-%d %H:%M}"
    if alert.deliver_at is not None:
        tried = f" after {alert.tries} tries: {alert.last_error}" if alert.tries else ""
        return f"Due {alert.deliver_at.astimezone(zone):%Y-%m-%d %H:%M}{tried}"
    return f"Given up after {alert.tries} tries: {alert.last_error}" if alert.tries else "-"
