"""The proof: what the ledger's sums must be, recomputed from its rows, and each cost from tokens and prices.

Rows are read some hundreds at a time: a ledger of millions of calls takes minutes, not memory.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from completions.ledger import recovery
from completions.models import Adjustment, Attempt, BudgetWindow, Charge, Completion, Project, State
from completions.models.calls import SPARED
from providers import pricing
from providers.types import Price

SHOWN = 100  # problems of one kind that are named
BATCH = 500  # rows in memory; old SQLite takes 999 parameters
# Between a call's claim on a period and its row: one made as the period ended may outlive it, when pruned.
MARGIN = timedelta(hours=1)
METERED = (
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_prompt_tokens",
    "audio_completion_tokens",
    "cost_nano_usd",
    "prices",
)


def audit() -> list[str]:
    """Every contradiction found, one sentence each naming the rows; empty when the ledger is true."""
    own = not connection.in_atomic_block
    with transaction.atomic():
        if own and connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # one snapshot for all the sums
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return [*_pruned(), *_windows(), *_running(), *_charges(), *_unpaid(), *_shown(_costs())]


def _shown(problems: Iterator[str]) -> Iterator[str]:
    return (problem for _, problem in zip(range(SHOWN), problems, strict=False))


def _pruned() -> Iterator[str]:
    """No ledger begins in the future: its windows would not be looked at."""
    for project in Project.objects.filter(ledger_since__gt=timezone.now())[:SHOWN]:
        yield f"project {project.slug} keeps its calls since {project.ledger_since}, which is yet to come"


def _windows() -> Iterator[str]:
    """held = sum of open holds, spent = sum of settled costs and their adjustments, both never negative."""
    # A window that began before its project's ledger does was pruned of its charges, or of some.
    pruned = Q(ends_at__isnull=False, starts_at__lt=F("budget__project__ledger_since"))
    windows = BudgetWindow.objects.select_related("budget__project", "budget__api_key").exclude(pruned)
    for some in _batches(windows):
        yield from _windows_of(some)


def _windows_of(windows: Sequence[BudgetWindow]) -> Iterator[str]:
    charges = Charge.objects.filter(window__in=windows)
    held = _sums(charges.filter(cost_nano=None), "window", "hold_nano")
    spent = _sums(charges.exclude(cost_nano=None), "window", "cost_nano")
    adjustments = Adjustment.objects.filter(completion__charges__window__in=windows)
    adjusted = _sums(adjustments, "completion__charges__window", "amount_nano")
    for window in windows:
        open_holds = held.get(window.pk, 0)
        if window.held_nano != open_holds:
            yield f"window {window.pk} ({window}) holds {window.held_nano}, its open charges {open_holds}"
        booked = spent.get(window.pk, 0) + adjusted.get(window.pk, 0)
        if window.spent_nano != booked:
            yield f"window {window.pk} ({window}) has spent {window.spent_nano}, its charges say {booked}"


def _sums(rows: QuerySet[Any], by: str, column: str) -> dict[int, int]:
    return dict(rows.values_list(by).annotate(total=Coalesce(Sum(column), 0)).order_by())


def _batches(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    """All of them in the order of their ids; no long-lived cursor, no offset."""
    rows = rows.order_by("pk")
    some = list(rows[:BATCH])
    while some:
        yield some
        some = list(rows.filter(pk__gt=some[-1].pk)[:BATCH])


def _running() -> Iterator[str]:
    """No row runs without a living epoch."""
    rows = Completion.objects.filter(state=State.RUNNING)
    for row in rows.exclude(epoch_id__in=recovery.living())[:SHOWN]:
        yield f"completion {row.pk} is running, but its process (epoch {row.epoch_id}) does not live"


def _charges() -> Iterator[str]:
    """A running row's charges are open, a final row's settled at its cost; each held what its row says."""
    charges = Charge.objects.select_related("completion")
    for charge in charges.filter(cost_nano=None).exclude(completion__state=State.RUNNING)[:SHOWN]:
        yield f"completion {charge.completion_id} is final, but still holds window {charge.window_id}"
    for charge in charges.exclude(cost_nano=None).filter(completion__state=State.RUNNING)[:SHOWN]:
        yield f"completion {charge.completion_id} is running, but its charge on {charge.window_id} is settled"
    differs = ~Q(cost_nano=Coalesce(F("completion__cost_nano_usd"), 0))
    for charge in charges.exclude(cost_nano=None).filter(differs)[:SHOWN]:
        cost = charge.completion.cost_nano_usd
        yield f"completion {charge.completion_id} cost {cost}, was charged {charge.cost_nano}"
    for charge in charges.exclude(hold_nano=F("completion__hold_nano"))[:SHOWN]:
        hold = charge.completion.hold_nano
        yield f"completion {charge.completion_id} held {hold}, its charge says {charge.hold_nano}"


def _unpaid() -> Iterator[str]:
    """What held something is charged to some window, unless the budget is gone, or the window was pruned."""
    windows = BudgetWindow.objects.filter(
        Q(subject="") | Q(subject=OuterRef("end_user")),
        Q(budget__api_key=None) | Q(budget__api_key=OuterRef("api_key")),
        Q(ends_at=None) | Q(ends_at__gt=OuterRef("created_at")),
        budget__project=OuterRef("project"),
        budget__created_at__lte=OuterRef("created_at"),
        starts_at__lte=OuterRef("created_at"),
    )
    since = F("project__ledger_since") + MARGIN
    calls = Completion.objects.filter(
        Q(project__ledger_since=None) | Q(created_at__gt=since),
        ~Exists(Charge.objects.filter(completion=OuterRef("pk"))),
        Exists(windows),
        hold_nano__gt=0,
    ).exclude(cache__in=SPARED)
    for pk, hold in calls.order_by().values_list("pk", "hold_nano")[:SHOWN]:
        yield f"completion {pk} held {hold}, but is charged to no window"


# --- costs


def _costs() -> Iterator[str]:
    """A cost is its tokens at its own unit prices; a completion's is the sum of its attempts'."""
    calls = Completion.objects.exclude(state=State.RUNNING).only("state", "attempts", *METERED)
    attempts = Attempt.objects.only("completion_id", "number", *METERED).order_by()
    for some in _batches(calls):
        parts: dict[Any, list[Attempt]] = defaultdict(list)
        for attempt in attempts.filter(completion__gte=some[0].pk, completion__lte=some[-1].pk):
            parts[attempt.completion_id].append(attempt)
        for call in some:
            yield from _call(call, parts.get(call.pk, ()))


def _call(call: Completion, parts: Sequence[Attempt]) -> Iterator[str]:
    cost = call.cost_nano_usd
    if call.attempts != len(parts) and call.state != State.RECOVERED:  # what a dead process did is not known
        yield f"completion {call.pk} made {call.attempts} attempts, {len(parts)} are there"
    if not parts:
        expected = _expected(call)
        # Without an attempt nothing was used: its tokens are then what it was admitted with.
        if expected is not None and expected != cost and (call.attempts == 1 or cost):
            yield f"completion {call.pk} cost {cost}, its tokens at its prices {expected}"
        return
    costs = [part.cost_nano_usd for part in parts]
    total = None if None in costs else sum(one or 0 for one in costs)
    if cost != total:
        yield f"completion {call.pk} cost {cost}, its attempts {total}"
    for part in parts:
        if (expected := _expected(part)) != part.cost_nano_usd and (expected or part.cost_nano_usd):
            yield (
                f"attempt {part.number} of completion {call.pk} cost {part.cost_nano_usd}, its tokens at its "
                f"prices {expected}"
            )


def _expected(part: Completion | Attempt) -> int | None:
    """What its tokens cost at its own unit prices; None: it has no tokens, or no prices that can be read."""
    usage = part.usage
    if usage is None or not part.prices:
        return None
    try:
        return pricing.cost(usage, _price(part.prices))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _price(text: str) -> Price:
    return pricing.load(text)
