"""Completions: the ledger, read-only, quick at ten million rows: no counts, periods by the primary key."""

import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.safestring import SafeString

from completions.first_steps import first_id
from completions.models import Completion, State
from providers.admin.base import HubModelAdmin, InfinitePaginator, badge
from providers.admin.language_models import dollars
from providers.types import NANO

STATE_KINDS = {
    State.OK: "success",
    State.RUNNING: "info",
    State.CANCELLED: "warning",
    State.CLIENT_GONE: "warning",
    State.CLIENT_SLOW: "warning",
    State.SHUTDOWN: "warning",
    State.RECOVERED: "warning",
}


def state_badge(call: Completion) -> SafeString:
    return badge(STATE_KINDS.get(State(call.state), "danger"), State(call.state).label)


def cost_badge(call: Completion) -> SafeString | str:
    """The exact cost; a call with tokens whose price nobody knows is marked, never shown as free."""
    if call.cost_nano_usd is not None:
        return exact_dollars(call.cost_nano_usd)
    return "-" if call.prompt_tokens is None else badge("warning", "Unpriced")


def exact_dollars(nano: int) -> str:
    return dollars(Decimal(nano) / NANO)


def milliseconds(value: int | None) -> str:
    return "-" if value is None else f"{value:,} ms"


def to_the_second(moment: datetime | None) -> str:
    return "-" if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"


class PeriodFilter(admin.SimpleListFilter):
    title = "period"
    parameter_name = "period"
    PERIODS: ClassVar = {
        "1h": ("Last hour", timedelta(hours=1)),
        "24h": ("Last 24 hours", timedelta(days=1)),
        "7d": ("Last 7 days", timedelta(days=7)),
        "30d": ("Last 30 days", timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(key, label) for key, (label, _) in self.PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Completion]) -> QuerySet[Completion]:
        if (period := self.PERIODS.get(str(self.value()))) is None:
            return queryset
        return queryset.filter(id__gte=first_id(timezone.now() - period[1]))


class DayRangeFilter(admin.ListFilter):
    """From one day to another, both included, in the hub's time zone."""

    title = "days"
    template = "admin/completions/completion/days.html"

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        self.days = {name: _last(params.pop(name, "")) for name in ("from", "to")}
        self.others = {name: _last(value) for name, value in request.GET.lists() if name not in self.days}

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return ["from", "to"]

    def choices(self, changelist: ChangeList) -> Any:
        yield {
            **self.days,
            "others": self.others,
            "all": changelist.get_query_string(remove=["from", "to"]),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Completion]) -> QuerySet[Completion]:
        if first := _day(self.days["from"]):
            queryset = queryset.filter(id__gte=first_id(_midnight(first)))
        if last := _day(self.days["to"]):
            queryset = queryset.filter(id__lt=first_id(_midnight(last + timedelta(days=1))))
        return queryset


def _last(value: Any) -> str:
    return str(value[-1]) if isinstance(value, list) else str(value)


def _day(text: str) -> date | None:
    try:
        return parse_date(text)
    except ValueError:
        return None


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


@admin.register(Completion)
class CompletionAdmin(HubModelAdmin):
    list_display = ("time", "project", "named", "answered_by", "outcome", "tokens", "cost", "latency", "key")
    list_filter = (PeriodFilter, DayRangeFilter, "project", "provider", "state")
    list_select_related = ("project", "api_key")
    list_fullwidth = True
    show_full_result_count = False
    paginator = InfinitePaginator
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = "Exact id or request id"
    actions = None
    fieldsets = (
        (None, {"fields": [("outcome", "finish_reason"), ("id", "request_id"), "error"]}),
        ("Who asked", {"fields": [("project", "api_key"), ("user", "end_user"), ("surface", "shape")]}),
        ("What answered", {"fields": [("requested_model", "model"), ("provider", "attempts")]}),
        (
            "Tokens",
            {
                "fields": [
                    ("prompt_tokens", "cached_tokens", "cache_write_tokens", "audio_prompt_tokens"),
                    ("completion_tokens", "reasoning_tokens", "audio_completion_tokens"),
                    "counted_by",
                ]
            },
        ),
        ("Cost", {"fields": [("cost", "price_source")]}),
        ("Time", {"fields": [("time", "finished"), ("first_token", "latency")]}),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Completion], search_term: str
    ) -> tuple[QuerySet[Completion], bool]:
        """Exact matches only, each by an index: a search within texts would read the whole table."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            by_id = queryset.filter(id=uuid.UUID(term))
        except ValueError:
            return queryset.filter(request_id=term), False
        return by_id if by_id.exists() else queryset.filter(request_id=term), False

    @admin.display(description="Time")
    def time(self, call: Completion) -> str:
        return to_the_second(call.created_at)

    @admin.display(description="Finished")
    def finished(self, call: Completion) -> str:
        return to_the_second(call.finished_at)

    @admin.display(description="Provider")
    def answered_by(self, call: Completion) -> str:
        return call.provider_slug or "-"

    @admin.display(description="Answer")
    def shape(self, call: Completion) -> str:
        return "Streamed" if call.stream else "In one piece"

    @admin.display(description="Tokens counted by")
    def counted_by(self, call: Completion) -> SafeString | str:
        if call.usage_anomaly:
            return badge("warning", call.usage_source, "The provider's own figures made no sense.")
        return call.usage_source or "-"

    @admin.display(description="Model")
    def named(self, call: Completion) -> str:
        return call.requested_model or call.model

    @admin.display(description="State")
    def outcome(self, call: Completion) -> SafeString:
        return state_badge(call)

    @admin.display(description="Error")
    def error(self, call: Completion) -> str:
        return ": ".join(part for part in (call.error_code, call.error_message) if part) or "-"

    @admin.display(description="Tokens in → out")
    def tokens(self, call: Completion) -> str:
        if call.prompt_tokens is None and call.completion_tokens is None:
            return "-"
        return f"{call.prompt_tokens or 0:,} → {call.completion_tokens or 0:,}"

    @admin.display(description="Cost")
    def cost(self, call: Completion) -> SafeString | str:
        return cost_badge(call)

    @admin.display(description="Latency")
    def latency(self, call: Completion) -> str:
        return milliseconds(call.latency_ms)

    @admin.display(description="First token")
    def first_token(self, call: Completion) -> str:
        return milliseconds(call.first_token_ms)

    @admin.display(description="Key")
    def key(self, call: Completion) -> str:
        return call.api_key.name if call.api_key else "-"
