"""Completions: the ledger, read-only, quick at ten million rows: no counts, periods by the primary key."""

import uuid
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from completions import arithmetic, repricing
from completions.admin import caching, call_page, compare_page, running_calls, spend, unpriced
from completions.admin.amounts import exact_dollars, milliseconds, state_badge, to_the_second
from completions.admin.caching import CacheFilter
from completions.cache.erasing import erase
from completions.content import Scope
from completions.errors import UnavailableError
from completions.ids import first_id
from completions.models import Completion, State
from providers.admin.base import InfinitePaginator, ShownModelAdmin, badge, detail_action

MOST_ERASED = 1000  # calls at once; `manage.py erase_content` has no such bound


def cost_badge(call: Completion) -> SafeString | str:
    """The exact cost with its corrections; a price that nobody knows is marked, never shown as free."""
    cost = arithmetic.current_cost(call)
    if cost is not None:
        return exact_dollars(cost)
    if call.prompt_tokens is None or call.state == State.RUNNING:
        return "-"
    return badge("warning", "Unpriced")


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


class PriceFilter(admin.SimpleListFilter):
    title = "price"
    parameter_name = "price"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unknown", "Not known yet")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Completion]) -> QuerySet[Completion]:
        return queryset & repricing.unpriced() if self.value() == "unknown" else queryset


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
class CompletionAdmin(ShownModelAdmin):
    list_display = (
        "time", "project", "named", "answered_by", "outcome", "cached", "tokens", "cost", "latency", "key",
    )  # fmt: skip
    list_filter = (PeriodFilter, DayRangeFilter, "project", "provider", "state", CacheFilter, PriceFilter)
    list_select_related = ("project", "api_key")
    list_fullwidth = True
    show_full_result_count = False
    paginator = InfinitePaginator
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = "Exact id or request id"
    actions = ("compare_selected", "erase_selected")
    actions_detail = ("erase_content",)
    change_form_outer_after_template = "admin/completions/completion/below.html"
    fieldsets = (
        (None, {"fields": [("outcome", "finish_reason"), ("id", "request_id"), "error"]}),
        ("Who asked", {"fields": [("project", "api_key"), ("user", "end_user"), ("surface", "shape")]}),
        ("What answered", {"fields": [("requested_model", "model"), ("provider", "attempts"), "cache_told"]}),
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
        ("Cost", {"fields": [("cost", "price_source"), "saved"]}),
        ("Time", {"fields": [("time", "finished"), ("first_token", "latency")]}),
    )

    class Media:
        css: ClassVar = {"all": ("completions/ledger.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Completion]:
        rows: QuerySet[Completion] = super().get_queryset(request)
        return rows.prefetch_related("adjustments")

    def get_urls(self) -> list[URLPattern]:
        pages = [
            path("spend/", self.admin_site.admin_view(spend.page), name="completions_spend"),
            path("spend.csv", self.admin_site.admin_view(spend.csv), name="completions_spend_csv"),
            path("running/", self.admin_site.admin_view(running_calls.page), name="completions_running"),
            path(
                "running/rows/",
                self.admin_site.admin_view(running_calls.rows),
                name="completions_running_rows",
            ),
            path(
                "running/<uuid:call_id>/cancel/",
                self.admin_site.admin_view(running_calls.cancel),
                name="completions_running_cancel",
            ),
            path("unpriced/", self.admin_site.admin_view(unpriced.page), name="completions_unpriced"),
            path("compare/", self.admin_site.admin_view(compare_page.page), name="completions_compare"),
        ]
        return [*pages, *super().get_urls()]

    def below(self, request: HttpRequest, row: Completion) -> dict[str, Any]:
        return call_page.below(request, row)

    def has_erase_content_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("completions.delete_completioncontent"))

    @detail_action(
        "Erase content", icon="ink_eraser", permission="erase_content", variant=ActionVariant.DANGER
    )
    def erase_content(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def run(call: Completion) -> tuple[int, str]:
            try:
                erased = erase(Scope(completions=[call.pk]))
            except UnavailableError as error:
                return messages.ERROR, f"Nothing was erased. {error}"
            if not any(erased):
                return messages.INFO, "There was no content: never written, expired or erased."
            self.log_change(request, call, "Erased the content.")
            cached = " So is its cached answer." if erased.answers else ""
            return messages.SUCCESS, f"The prompt and the answer are erased. Tokens and cost stay.{cached}"

        question = "Erase the prompt and the answer of this call, for good? Tokens and cost stay."
        return self.ask_or_run(request, object_id, question, run)

    @admin.action(description="Compare two selected calls (why was it a miss?)", permissions=["view"])
    def compare_selected(self, request: HttpRequest, chosen: QuerySet[Completion]) -> HttpResponse | None:
        ids = list(chosen.order_by("-id").values_list("pk", flat=True)[:3])
        if len(ids) not in (1, 2):
            messages.warning(request, "Choose two calls; or one, to compare it with the one most like it.")
            return None
        query = "&".join(f"{name}={pk}" for name, pk in zip("ab", ids, strict=False))
        return HttpResponseRedirect(f"{reverse('admin:completions_compare')}?{query}")

    @admin.action(description="Erase content of selected calls", permissions=["erase_content"])
    def erase_selected(self, request: HttpRequest, chosen: QuerySet[Completion]) -> HttpResponse | None:
        found = chosen.order_by().filter(content__isnull=False)
        ids = list(found.values_list("pk", flat=True)[: MOST_ERASED + 1])
        if not ids or len(ids) > MOST_ERASED:
            told = (
                f"{'More than ' if ids else ''}{MOST_ERASED if ids else 'None'} of these calls have content."
            )
            messages.warning(request, told + (" manage.py erase_content erases any number." if ids else ""))
            return None
        if request.POST.get("confirmed") != "yes":
            return TemplateResponse(
                request, "admin/completions/completion/erase.html", self._erasing(request, ids)
            )
        calls = Completion.objects.filter(pk__in=ids)
        try:
            erased = erase(Scope(completions=ids))
        except UnavailableError as error:
            messages.error(request, f"Erased, but not from the cache: {error}")
            return None
        LogEntry.objects.log_actions(request.user.pk or 0, calls, CHANGE, "Erased the content.")
        cached = f" With them went {erased.answers} cached answers." if erased.answers else ""
        messages.success(
            request, f"Erased the content of {erased.contents} calls. Tokens and cost stay.{cached}"
        )
        return None

    def _erasing(self, request: HttpRequest, ids: list[uuid.UUID]) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": "Erase content",
            "opts": self.opts,
            "ids": ids,
        }

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

    @admin.display(description="Cache")
    def cached(self, call: Completion) -> SafeString | str:
        return caching.cache_badge(call)

    @admin.display(description="Cache")
    def cache_told(self, call: Completion) -> SafeString:
        return caching.told(call)

    @admin.display(description="Saved by the cache")
    def saved(self, call: Completion) -> str:
        return exact_dollars(call.saved_nano_usd) if call.saved_nano_usd else "-"

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
