"""The proof: what the ledger's sums must be, recomputed from its rows."""

from collections.abc import Iterator

from django.db import connection, transaction
from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce

from completions.ledger import recovery
from completions.models import Adjustment, Attempt, BudgetWindow, Charge, Completion, State

SHOWN = 100  # problems of one kind that are named


def audit() -> list[str]:
    """Every contradiction found, one sentence each naming the rows; empty when the ledger is true."""
    own = not connection.in_atomic_block
    with transaction.atomic():
        if own and connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # one snapshot for all the sums
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return [*_windows(), *_running(), *_charges(), *_attempts()]


def _windows() -> Iterator[str]:
    """held = sum of open holds, spent = sum of settled costs and their adjustments, both never negative."""
    held = dict(_sums(Charge.objects.filter(cost_nano=None), "hold_nano"))
    spent = dict(_sums(Charge.objects.exclude(cost_nano=None), "cost_nano"))
    adjusted = dict(
        Adjustment.objects.filter(completion__charges__isnull=False)
        .values_list("completion__charges__window")
        .annotate(total=Sum("amount_nano"))
        .order_by()
    )
    windows = BudgetWindow.objects.select_related("budget__project", "budget__api_key")
    # A window that began before its project's ledger does was pruned of its charges, or of some.
    pruned = Q(ends_at__isnull=False, starts_at__lt=F("budget__project__ledger_since"))
    for window in windows.exclude(pruned).iterator():
        if window.held_nano != held.get(window.pk, 0):
            open_holds = held.get(window.pk, 0)
            yield f"window {window.pk} ({window}) holds {window.held_nano}, its open charges {open_holds}"
        booked = spent.get(window.pk, 0) + (adjusted.get(window.pk) or 0)
        if window.spent_nano != booked:
            yield f"window {window.pk} ({window}) has spent {window.spent_nano}, its charges say {booked}"


def _sums(charges: "object", column: str) -> list[tuple[int, int]]:
    return list(
        charges.values_list("window").annotate(total=Coalesce(Sum(column), 0)).order_by()  # type: ignore[attr-defined]
    )


def _running() -> Iterator[str]:
    """No row runs without a living epoch."""
    rows = Completion.objects.filter(state=State.RUNNING)
    for row in rows.exclude(epoch_id__in=recovery.living())[:SHOWN]:
        yield f"completion {row.pk} is running, but its process (epoch {row.epoch_id}) does not live"


def _charges() -> Iterator[str]:
    """A running row's charges are open, a final row's are settled at its cost."""
    charges = Charge.objects.select_related("completion")
    for charge in charges.filter(cost_nano=None).exclude(completion__state=State.RUNNING)[:SHOWN]:
        yield f"completion {charge.completion_id} is final, but still holds window {charge.window_id}"
    for charge in charges.exclude(cost_nano=None).filter(completion__state=State.RUNNING)[:SHOWN]:
        yield f"completion {charge.completion_id} is running, but its charge on {charge.window_id} is settled"
    differs = ~Q(cost_nano=Coalesce(F("completion__cost_nano_usd"), 0))
    for charge in charges.exclude(cost_nano=None).filter(differs)[:SHOWN]:
        cost = charge.completion.cost_nano_usd
        yield f"completion {charge.completion_id} cost {cost}, was charged {charge.cost_nano}"


def _attempts() -> Iterator[str]:
    """A completion's cost is the sum of its attempts', where it has any and all are priced."""
    sums = (
        Attempt.objects.values_list("completion", "completion__cost_nano_usd")
        .annotate(total=Sum("cost_nano_usd"))
        .order_by()
        .exclude(completion__cost_nano_usd=None)
    )
    for completion, cost, total in sums.exclude(total=F("completion__cost_nano_usd"))[:SHOWN]:
        yield f"completion {completion} cost {cost}, its attempts {total}"
