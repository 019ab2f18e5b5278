"""Hourly sums of the ledger, in `UsageRollup`.

A pass finds the hours that changed since the last one and sums each anew, in one transaction; nothing is ever
added to a sum, so a pass may be repeated, cut short or run twice. Three things change an hour:
- calls admitted since the last pass (less OVERLAP, for commits that came late and clocks that differ);
- calls that ran at the last pass and run no more, however old: each hour's count of running calls is kept;
- adjustments since the last pass, in the hour of the call they correct.
Running calls are not summed. Hours whose calls were pruned keep their sums (`Project.ledger_since`).
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from completions import jobs
from completions.jobs import job, time_left
from completions.models import SPARED, Adjustment, Completion, Job, Project, State, UsageRollup
from providers.types import JSON

HOUR = timedelta(hours=1)
OVERLAP = timedelta(minutes=5)
GROUP = ("project_id", "api_key_id", "provider_slug", "requested_model", "end_user", "state")
SUMS = (
    "calls",
    "unpriced_calls",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "cached_calls",
    "saved_nano_usd",
    "latency_ms",
)


@job("rollup", every_seconds=60, embedded_seconds=15, rests=50)
def rollup(state: JSON) -> bool:
    """Sum the hours that changed.

    Remembers: `summed_until` (all older hours are done), `looked_at` (adjustments before it are), `running`
    (calls by hour) and `pending` (changed hours that time did not suffice for).
    """
    now = timezone.now()
    since = _time(state.get("summed_until"))
    running = _running_by_hour()
    changed = {_time(hour) for hour in state.get("pending", ())}
    changed |= {_time(hour) for hour, calls in state.get("running", {}).items() if running.get(hour) != calls}
    changed |= set(_adjusted_since(_time(state.get("looked_at"))))
    state |= {"running": running, "looked_at": now.isoformat()}
    waiting = sorted(hour for hour in changed if hour is not None)
    while waiting and time_left():
        sum_hour(waiting.pop(0))
    state["pending"] = [hour.isoformat() for hour in waiting]
    done_until = now
    for hour in _hours_with_calls(since - OVERLAP if since else None):
        if waiting or not time_left():
            done_until = min(hour, now)
            break
        sum_hour(hour)
    state["summed_until"] = done_until.isoformat()
    return bool(waiting) or done_until < now


def restart(since: datetime | None = None) -> bool:
    """Have the job sum anew from the hour of `since` on (None: from the first call). False: it runs now."""
    state: JSON = {}
    if since is not None:
        state = _state()
        until = _time(state.get("summed_until"))
        state["summed_until"] = min(since + OVERLAP, until).isoformat() if until else None
    return jobs.reset("rollup", state)


def summed_until() -> datetime | None:
    """How far the sums go; None: none were made."""
    return _time(_state().get("summed_until"))


def is_whole(at: datetime) -> bool:
    """Whether a pass that began after `at` left no hour undone."""
    until = summed_until()
    return until is not None and until >= at and not _state().get("pending")


def complete_until() -> datetime | None:
    """Before when no hour waits to be summed. None: none were, or a correction is not in the sums yet."""
    state = _state()
    looked_at, until = _time(state.get("looked_at")), _time(state.get("summed_until"))
    if looked_at is None or until is None:
        return None
    if Adjustment.objects.filter(created_at__gte=looked_at - OVERLAP).exists():
        return None
    pending = [_time(hour) for hour in state.get("pending", ())]
    return min([until, *(hour for hour in pending if hour is not None)])


def _state() -> JSON:
    state: JSON | None = Job.objects.filter(name="rollup").values_list("state", flat=True).first()
    return state or {}


def sum_hour(hour: datetime) -> bool:
    """Make the sums of one hour (its beginning, UTC) anew. Returns whether any of them differed.

    Projects without a call in that hour keep the sums they have: calls never leave the ledger but by pruning.
    Reading, which may take long, is no part of the transaction: on SQLite it would stop the ledger.
    """
    wanted = _sums(hour)
    present = UsageRollup.objects.filter(hour=hour, project_id__in={row.project_id for row in wanted})
    if sorted(map(_facts, present), key=repr) == sorted(map(_facts, wanted), key=repr):
        return False
    with transaction.atomic():
        Job.objects.select_for_update().filter(
            name="rollup"
        ).first()  # a runner that lost its lease waits here
        present.all().delete()
        UsageRollup.objects.bulk_create(wanted, batch_size=500)
    return True


def _facts(row: UsageRollup) -> tuple[Any, ...]:
    names = ("project_id", "api_key_id", "provider_slug", "model", "end_user", "state", *SUMS)
    return tuple(getattr(row, name) for name in names)


def _sums(hour: datetime) -> list[UsageRollup]:
    """The sums of an hour, not yet saved; without the projects whose calls of that hour were pruned."""
    pruned = Project.objects.filter(ledger_since__gt=hour).values_list("pk", flat=True)
    calls = _settled(hour).exclude(project_id__in=list(pruned))
    groups = calls.values(*GROUP).annotate(
        sum_calls=Count("pk"),
        sum_unpriced_calls=Count("pk", filter=Q(cost_nano_usd=None)),
        sum_prompt_tokens=Coalesce(Sum("prompt_tokens"), 0),
        sum_cached_tokens=Coalesce(Sum("cached_tokens"), 0),
        sum_completion_tokens=Coalesce(Sum("completion_tokens"), 0),
        sum_reasoning_tokens=Coalesce(Sum("reasoning_tokens"), 0),
        sum_cost_nano_usd=Coalesce(Sum("cost_nano_usd"), 0),
        sum_cached_calls=Count("pk", filter=Q(cache__in=SPARED)),
        sum_saved_nano_usd=Coalesce(Sum("saved_nano_usd"), 0),
        sum_latency_ms=Coalesce(Sum("latency_ms"), 0),
    )
    rows = {tuple(group[name] for name in GROUP): _rollup(hour, group) for group in groups.order_by()}
    for group in _adjustments(hour):
        row = rows.get(tuple(group[f"completion__{name}"] for name in GROUP))
        if row is not None:  # else pruned, or settled since the sums above were read: the next pass sees it
            row.cost_nano_usd += group["amount"]
            row.unpriced_calls -= group["priced_later"]
    return list(rows.values())


def _settled(hour: datetime) -> QuerySet[Completion]:
    return Completion.objects.filter(created_at__gte=hour, created_at__lt=hour + HOUR).exclude(
        state=State.RUNNING
    )


def _rollup(hour: datetime, group: dict[str, Any]) -> UsageRollup:
    return UsageRollup(
        hour=hour,
        project_id=group["project_id"],
        api_key_id=group["api_key_id"],
        provider_slug=group["provider_slug"],
        model=group["requested_model"],
        end_user=group["end_user"],
        state=group["state"],
        **{name: group[f"sum_{name}"] for name in SUMS},
    )


def _adjustments(hour: datetime) -> list[dict[str, Any]]:
    """Corrections of an hour's calls by group, and how many calls without a price have one by now."""
    if not Adjustment.objects.exists():  # mostly: and the hour's calls need not be joined
        return []
    groups = (
        Adjustment.objects.filter(completion__created_at__gte=hour, completion__created_at__lt=hour + HOUR)
        .values(*(f"completion__{name}" for name in GROUP))
        .annotate(
            amount=Sum("amount_nano"),
            priced_later=Count("completion", distinct=True, filter=Q(completion__cost_nano_usd=None)),
        )
    )
    return list(groups.order_by())


def _running_by_hour() -> dict[str, int]:
    running = Completion.objects.filter(state=State.RUNNING)
    times = running.order_by().values_list("created_at", flat=True)
    return dict(Counter(_hour(at).isoformat() for at in times.iterator()))


def _adjusted_since(looked_at: datetime | None) -> set[datetime]:
    """Hours of the calls that were corrected since; found from the newest adjustment backwards, by key."""
    rows = Adjustment.objects.order_by("-pk")
    if looked_at is None:  # every hour will be summed
        return set()
    older = rows.filter(created_at__lt=looked_at - OVERLAP).values_list("pk", flat=True).first()
    times = rows.filter(pk__gt=older or 0).order_by().values_list("completion__created_at", flat=True)
    return {_hour(at) for at in times.distinct().iterator()}


def _hours_with_calls(since: datetime | None) -> Iterator[datetime]:
    """Each hour from that of `since` on in which a call began, oldest first."""
    calls = Completion.objects.order_by("created_at").values_list("created_at", flat=True)
    at = calls.first() if since is None else calls.filter(created_at__gte=_hour(since)).first()
    while at is not None:
        yield _hour(at)
        at = calls.filter(created_at__gte=_hour(at) + HOUR).first()


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
