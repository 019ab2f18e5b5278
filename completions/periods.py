"""Periods of a budget: which one an instant falls into, in a project's time zone, and which one counts."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo


class Period(StrEnum):
    """How often a budget begins anew. A week begins on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` (inclusive) to `end` (exclusive), both UTC; None: for ever."""

    start: datetime
    end: datetime | None


FOR_EVER = Span(datetime(1970, 1, 1, tzinfo=UTC), None)


def span_of(period: Period, at: datetime, zone: ZoneInfo) -> Span:
    """The period that `at` falls into. It begins and ends at midnight of the zone, whatever its clocks do."""
    if period is Period.TOTAL:
        return FOR_EVER
    day = at.astimezone(zone).date()
    first = _first_day(period, day)
    return Span(_midnight(first, zone), _midnight(_next_first_day(period, first), zone))


def present(latest: Span | None, span: Span, at: datetime) -> Span:
    """The period that counts at `at`: `latest` is the last that was begun, `span` what the calendar says.

    One that has begun is stayed in until it ends, whatever becomes of the zone or the clock, and the next
    begins where it ended: no two overlap. A call whose own period has ended meanwhile begins none.
    """
    if latest is None:
        return span
    if latest.end is None or at < latest.end or (span.end is not None and span.end <= latest.end):
        return latest
    return Span(max(span.start, latest.end), span.end)


def _first_day(period: Period, day: date) -> date:
    if period is Period.DAY:
        return day
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1)


def _next_first_day(period: Period, first: date) -> date:
    if period is Period.MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=1 if period is Period.DAY else 7)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)
