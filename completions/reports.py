"""What was used and spent, by time and by one subject: read from the hourly sums (`completions.rollups`).

    question = Question(project_ids=(7,), since=…, until=…, interval="day", zone=ZoneInfo("Europe/Berlin"),
                        group_by="model")
    usage_series(question)   one UsageRow per bucket and model that has calls, oldest first
    usage_total(question)    one UsageRow over the whole time
    usage_totals(question)   one UsageRow per model over the whole time, dearest first; `bucket` is None
    buckets(question)        the beginning of every bucket, those without calls too: the axis of a chart

Sums follow the ledger within a minute (15 seconds where the hub is embedded); running calls are not in them.
They are of whole UTC hours: `since` is rounded down to an hour, `until` up, and an hour that begins before
midnight in the zone counts for the day in which it begins.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

from django.db.models import F, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncMonth

from completions.errors import InvalidRequestError
from completions.models import ApiKey, Project, UsageRollup
from completions.rollups import SUMS

Interval: TypeAlias = Literal["hour", "day", "month"]
Subject: TypeAlias = Literal["model", "provider", "key", "user", "project", "state"]
INTERVALS: tuple[Interval, ...] = get_args(Interval)
SUBJECTS: tuple[Subject, ...] = get_args(Subject)
COLUMNS: dict[Subject, str] = {
    "model": "model",
    "provider": "provider_slug",
    "key": "api_key_id",
    "user": "end_user",
    "project": "project_id",
    "state": "state",
}
MOST_BUCKETS = 2_000
MOST_ROWS = 20_000
HOUR = timedelta(hours=1)
UTC_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Question:
    """Whose usage (`project_ids` None: of all projects), from `since` up to `until`, in which portions."""

    project_ids: tuple[int, ...] | None
    since: datetime
    until: datetime
    interval: Interval = "day"
    zone: ZoneInfo = UTC_ZONE
    group_by: Subject | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums of one bucket and group. `cost_nano_usd` lacks what the unpriced calls cost: nobody knows it.

    `cached_calls` were answered by the cache or with another call, which saved `saved_nano_usd`.
    `group` is the subject's value (of keys and projects the id; "" where a call had none), `label` its name.
    """

    bucket: datetime | None
    group: str
    label: str
    calls: int
    unpriced_calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_nano_usd: int
    cached_calls: int
    saved_nano_usd: int
    latency_ms: int  # mean of a call


def usage_series(question: Question) -> list[UsageRow]:
    """A row per bucket and group. Raises InvalidRequestError where that is more than can be shown."""
    check(question)
    rows = _rows(question).annotate(bucket=_bucket(question))
    return _summed(rows, question, ["bucket"], ["bucket", "-sum_cost_nano_usd"])


def usage_totals(question: Question) -> list[UsageRow]:
    """A row per group over the whole time, the dearest first."""
    check(question)
    return _summed(_rows(question), question, [], ["-sum_cost_nano_usd", "-sum_calls"])


def usage_total(question: Question) -> UsageRow:
    """One row over the whole time; zeros where there was no call. `group_by` is not looked at."""
    rows = usage_totals(replace(question, group_by=None))
    return rows[0] if rows else UsageRow(None, "", "", *(0 for _ in SUMS))


def buckets(question: Question) -> list[datetime]:
    """When each bucket begins, in the question's zone. InvalidRequestError beyond MOST_BUCKETS."""
    first, end = _hours(question)
    start = _start(first.astimezone(question.zone), question.interval)
    found: list[datetime] = []
    while start.astimezone(UTC) < end:
        if len(found) == MOST_BUCKETS:
            raise InvalidRequestError(
                f"From since to until are more than {MOST_BUCKETS} buckets of one {question.interval}. "
                "Ask for less time, or for a longer interval.",
                param="since",
            )
        found.append(start)
        start = _next(start, question.interval)
    return found


def check(question: Question) -> None:
    """Raises InvalidRequestError unless the question can be answered."""
    for name, at in (("since", question.since), ("until", question.until)):
        if not 1970 < at.year < 9000:
            raise InvalidRequestError(f"{name} must lie between the years 1971 and 8999.", param=name)
    if question.since >= question.until:
        raise InvalidRequestError("since must be before until.", param="since")
    buckets(question)


def _hours(question: Question) -> tuple[datetime, datetime]:
    """Beginning of the first UTC hour, and end of the last."""
    since, until = question.since.astimezone(UTC), question.until.astimezone(UTC)
    end = until.replace(minute=0, second=0, microsecond=0)
    return since.replace(minute=0, second=0, microsecond=0), end if end == until else end + HOUR


def _start(at: datetime, interval: Interval) -> datetime:
    if interval == "hour":
        return at  # a UTC hour's beginning; in some zones that is half past
    day = at.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return day if interval == "day" else day.replace(day=1)


def _next(start: datetime, interval: Interval) -> datetime:
    if interval == "hour":
        return (start.astimezone(UTC) + HOUR).astimezone(start.tzinfo)
    if interval == "day":
        return start + timedelta(days=1)  # by the wall clock of its zone
    return (start + timedelta(days=31)).replace(day=1)


def _bucket(question: Question) -> Any:
    """The hour itself is never cut by the zone's clock: in autumn two hours have one name."""
    if question.interval == "hour":
        return F("hour")
    cut = TruncDay if question.interval == "day" else TruncMonth
    return cut("hour", tzinfo=question.zone)


def _rows(question: Question) -> QuerySet[UsageRollup]:
    first, end = _hours(question)
    rows = UsageRollup.objects.filter(hour__gte=first, hour__lt=end)
    return rows if question.project_ids is None else rows.filter(project_id__in=question.project_ids)


def _summed(rows: QuerySet[Any], question: Question, by: list[str], order: list[str]) -> list[UsageRow]:
    column = COLUMNS[question.group_by] if question.group_by else None
    names = [*by, column] if column else by
    sums = {f"sum_{name}": Sum(name) for name in SUMS}
    if names:
        found = list(rows.values(*names).annotate(**sums).order_by(*order, *names)[: MOST_ROWS + 1])
    else:
        only = rows.aggregate(**sums)
        found = [only] if only["sum_calls"] else []
    if len(found) > MOST_ROWS:
        raise InvalidRequestError(
            f"That would be more than {MOST_ROWS} rows. Ask for less time, a longer interval, or another "
            "group.",
            param="group_by",
        )
    labels = _labels(question.group_by, {row[column] for row in found}) if column else {}
    return [_row(row, row[column] if column else "", labels, question) for row in found]


def _row(row: dict[str, Any], value: Any, labels: dict[Any, str], question: Question) -> UsageRow:
    sums = {name: int(row[f"sum_{name}"]) for name in SUMS}
    sums["latency_ms"] = round(sums["latency_ms"] / sums["calls"]) if sums["calls"] else 0
    bucket: datetime | None = row.get("bucket")
    group = "" if value is None else str(value)
    return UsageRow(
        bucket=bucket.astimezone(question.zone) if bucket else None,
        group=group,
        label=labels.get(value, group),
        **sums,
    )


def _labels(subject: Subject | None, values: Iterable[Any]) -> dict[Any, str]:
    """Names of ids. What was deleted since is shown by its id."""
    if subject == "project":
        return dict(Project.objects.filter(pk__in=values).values_list("pk", "slug"))
    if subject == "key":
        return {key.pk: str(key) for key in ApiKey.objects.filter(pk__in=[v for v in values if v])}
    return {}
