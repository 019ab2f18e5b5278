"""The spend page: what was spent by day, model, provider, project and key, from the hourly sums."""

import csv as csv_format
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from completions.admin.amounts import exact_dollars, sum_dollars, sum_tile
from completions.admin.charts import Series, stacked
from completions.errors import InvalidRequestError
from completions.models import Project
from completions.reports import (
    Question,
    Subject,
    UsageRow,
    buckets,
    usage_series,
    usage_total,
    usage_totals,
)
from completions.wording import counted
from providers.pricing import usd

PERIODS = {"7d": "7 days", "30d": "30 days", "90d": "90 days", "month": "This month", "before": "Last month"}
BY: dict[Subject, str] = {"model": "Model", "provider": "Provider", "project": "Project", "key": "Key"}
COLOURS = 6  # groups with a colour of their own; the rest share one
MOST_LINES = 20  # of a table
WIDE, NARROW = (1000, 320), (380, 280)
WIDE_LOW, NARROW_LOW = (1000, 190), (380, 190)
CSV_COLUMNS = (
    "calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_usd", "cached_calls", "saved_usd",
)  # fmt: skip
RISKY = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would take the cell for a formula


@dataclass(frozen=True, slots=True)
class Choice:
    """What the page was asked for."""

    period: str
    by: Subject
    project: Project | None
    question: Question

    def query(self, **changes: str) -> str:
        values = {"period": self.period, "by": str(self.by)}
        if self.project is not None:
            values["project"] = self.project.slug
        return "?" + "&".join(f"{name}={value}" for name, value in (values | changes).items() if value)


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    choice = _choice(request)
    context = {**admin.site.each_context(request), "title": "Spend", "choice": choice, **_choosers(choice)}
    try:
        context |= _figures(choice)
    except InvalidRequestError as error:
        context["problem"] = str(error)
    return TemplateResponse(request, "admin/completions/completion/spend.html", context)


@require_safe
def csv(request: HttpRequest) -> HttpResponse:
    """A line per day and group, as on the page."""
    choice = _choice(request)
    try:
        rows = usage_series(choice.question)
    except InvalidRequestError as error:
        return HttpResponse(str(error), status=400, content_type="text/plain; charset=utf-8")
    text = io.StringIO()
    lines = csv_format.writer(text)
    lines.writerow(["day", choice.by, *CSV_COLUMNS])
    for row in rows:
        day = row.bucket.date().isoformat() if row.bucket else ""
        counts = (row.calls, row.unpriced_calls, row.prompt_tokens, row.completion_tokens)
        money = (f"{usd(row.cost_nano_usd):f}", row.cached_calls, f"{usd(row.saved_nano_usd):f}")
        lines.writerow([day, _harmless(row.label), *counts, *money])
    answer = HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="spend-by-{choice.by}-{choice.period}.csv"'
    return answer


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(RISKY) else text


def _choice(request: HttpRequest) -> Choice:
    """What the query asks for; whatever it gets wrong is as if it were not there."""
    if not request.user.has_perm("completions.view_completion"):
        raise PermissionDenied
    period = request.GET.get("period", "")
    period = period if period in PERIODS else "30d"
    by: Subject = next((one for one in BY if one == request.GET.get("by")), "model")
    project = Project.objects.filter(slug=request.GET.get("project", "")).first()
    zone = ZoneInfo(timezone.get_current_timezone_name())
    since, until = _span(period, timezone.now().astimezone(zone).date(), zone)
    projects = None if project is None else (project.pk,)
    return Choice(period, by, project, Question(projects, since, until, "day", zone, by))


def _span(period: str, today: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    first, last = today.replace(day=1), today + timedelta(days=1)
    if period == "before":
        first, last = (first - timedelta(days=1)).replace(day=1), first
    elif period != "month":
        first = last - timedelta(days=int(period[:-1]))
    return datetime.combine(first, time(), zone), datetime.combine(last, time(), zone)


def _choosers(choice: Choice) -> dict[str, Any]:
    return {
        "periods": [
            {"label": label, "url": choice.query(period=key), "now": key == choice.period}
            for key, label in PERIODS.items()
        ],
        "bys": [
            {"label": label, "url": choice.query(by=key), "now": key == choice.by}
            for key, label in BY.items()
        ],
        "all_projects": choice.query(project=""),
        "csv_query": choice.query(),
    }


def _figures(choice: Choice) -> dict[str, Any]:
    question = choice.question
    whole = usage_total(question)
    days = [bucket.date() for bucket in buckets(question)]
    series = _series(days, usage_totals(question), usage_series(question))
    names = [f"{day:%b} {day.day}" for day in days]
    by_day = {row.bucket.date(): row for row in usage_series(replace(question, group_by=None)) if row.bucket}
    saved = [by_day[day].saved_nano_usd if day in by_day else 0 for day in days]
    return {
        "tiles": _tiles(whole),
        "unpriced": whole.unpriced_calls,
        "charts": _charts(names, series, (WIDE, NARROW)),
        "spent": whole.cost_nano_usd > 0,
        "saved": whole.saved_nano_usd > 0,
        "saved_charts": _charts(names, [Series("saved", saved)], (WIDE_LOW, NARROW_LOW)),
        "legend": list(enumerate((one.name for one in series), start=1)),
        "series": series,
        "days": [_day(day, index, series, by_day.get(day)) for index, day in enumerate(days)][::-1],
        "tables": [_table(choice, by, whole) for by in BY],
        "zone": str(question.zone),
        "first": days[0],
        "last": days[-1],
    }


def _charts(names: Sequence[str], series: Sequence[Series], sizes: Sequence[tuple[int, int]]) -> list[Any]:
    """One for wide windows and one for narrow ones; the style sheet shows either."""
    kinds = zip(("wide", "narrow"), sizes, strict=True)
    return [{"kind": kind, "shape": stacked(names, series, size, exact_dollars)} for kind, size in kinds]


def _series(days: Sequence[date], totals: Iterable[UsageRow], rows: Iterable[UsageRow]) -> list[Series]:
    """The dearest groups, each with its spend per day; the last holds the rest, if there are more."""
    dearest = [row for row in totals if row.cost_nano_usd > 0]
    shown = {row.group: index for index, row in enumerate(dearest[:COLOURS])}
    names = [row.label or "(none)" for row in dearest[:COLOURS]]
    if len(dearest) > COLOURS:
        names.append(f"{len(dearest) - COLOURS} others")
    place = {day: index for index, day in enumerate(days)}
    values = [[0] * len(days) for _ in names]
    for row in rows:
        if row.bucket is not None and row.cost_nano_usd > 0:
            values[shown.get(row.group, COLOURS)][place[row.bucket.date()]] += row.cost_nano_usd
    return [Series(name, found) for name, found in zip(names, values, strict=True)]


def _tiles(whole: UsageRow) -> list[dict[str, Any]]:
    return [
        sum_tile("Spend", whole.cost_nano_usd),
        {"name": "Calls", "value": f"{whole.calls:,}"},
        {"name": "Tokens in", "value": f"{whole.prompt_tokens:,}"},
        {"name": "Tokens out", "value": f"{whole.completion_tokens:,}"},
        sum_tile(
            "Saved by the cache",
            whole.saved_nano_usd,
            note=f"{counted(whole.cached_calls, 'call')}, {_share(whole.cached_calls, whole.calls)} of all",
        ),
    ]


def _share(part: int, whole: int) -> str:
    thousandths = part * 1000 // whole if whole > 0 else 0
    return f"{thousandths // 10}.{thousandths % 10} %"


def _day(day: date, index: int, series: Sequence[Series], row: UsageRow | None) -> dict[str, Any]:
    return {
        "day": day,
        "amounts": [sum_dollars(one.values[index]) if one.values[index] else "-" for one in series],
        "calls": f"{row.calls:,}" if row else "0",
        "cost": sum_dollars(row.cost_nano_usd if row else 0),
        "saved": sum_dollars(row.saved_nano_usd) if row and row.saved_nano_usd else "-",
    }


def _table(choice: Choice, by: Subject, whole: UsageRow) -> dict[str, Any]:
    rows = usage_totals(replace(choice.question, group_by=by))
    return {
        "title": BY[by],
        "lines": [_line(choice, by, row, whole) for row in rows[:MOST_LINES]],
        "more": max(len(rows) - MOST_LINES, 0),
    }


def _line(choice: Choice, by: Subject, row: UsageRow, whole: UsageRow) -> dict[str, Any]:
    return {
        "name": row.label or "(none)",
        "url": choice.query(project=row.label) if by == "project" and choice.project is None else "",
        "calls": f"{row.calls:,}",
        "tokens": f"{row.prompt_tokens + row.completion_tokens:,}",
        "cost": sum_dollars(row.cost_nano_usd),
        "share": _share(row.cost_nano_usd, whole.cost_nano_usd),
        "saved": sum_dollars(row.saved_nano_usd) if row.saved_nano_usd else "-",
        "unpriced": row.unpriced_calls,
    }
