"""Where a budget stands in its current period: spent, held, left."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Count, F, Max, Prefetch, Q, QuerySet
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString

from completions.admin.amounts import exact_dollars
from completions.models import Budget, BudgetWindow
from completions.periods import Span
from providers.types import NANO


@dataclass(frozen=True, slots=True)
class Standing:
    """Nano-dollars of the current period; of a budget per end user, those of whoever used most."""

    amount: int
    spent: int = 0
    held: int = 0
    end_users: int = 0

    @property
    def left(self) -> int:
        return max(0, self.amount - self.spent - self.held)

    @property
    def over(self) -> bool:
        return self.spent + self.held > self.amount

    @property
    def full(self) -> bool:
        return self.spent + self.held >= self.amount

    @property
    def spent_share(self) -> float:
        """Of 100, as wide as it is drawn."""
        return round(min(100.0, 100 * self.spent / self.amount), 2) if self.amount else 100.0

    @property
    def held_share(self) -> float:
        whole = 100.0 - self.spent_share
        return round(min(whole, 100 * self.held / self.amount), 2) if self.amount else 0.0


def with_open_windows(budgets: QuerySet[Budget]) -> QuerySet[Budget]:
    """The budgets with what `standing` needs of each, in one query more."""
    windows = _open(BudgetWindow.objects.filter(subject=""))
    return budgets.select_related("project", "api_key").prefetch_related(
        Prefetch("windows", queryset=windows, to_attr="open_windows")
    )


def _open(windows: QuerySet[BudgetWindow]) -> QuerySet[BudgetWindow]:
    """Those that have not ended, the one that begins last first."""
    return windows.filter(Q(ends_at=None) | Q(ends_at__gt=timezone.now())).order_by("-starts_at")


def current_span(budget: Budget) -> Span:
    """The period that counts now; of a budget per end user, that of an end user who begins now."""
    latest = budget.windows.filter(subject="").order_by("-starts_at").first()
    return budget.present(latest, timezone.now())[0]


def standing(budget: Budget) -> Standing:
    """Where it stands now, in the window that the ledger charges."""
    amount = int(budget.amount * NANO)
    if budget.per_end_user:
        used = _open(budget.windows.all()).aggregate(
            users=Count("subject", distinct=True), most=Max(F("spent_nano") + F("held_nano"))
        )
        return Standing(amount, spent=used["most"] or 0, end_users=used["users"])
    prefetched: Iterable[BudgetWindow] | None = getattr(budget, "open_windows", None)
    windows = _open(budget.windows.filter(subject="")) if prefetched is None else prefetched
    _, window = budget.present(next(iter(windows), None), timezone.now())
    return Standing(amount) if window is None else Standing(amount, window.spent_nano, window.held_nano)


def bar(budget: Budget) -> SafeString:
    """The standing drawn, and the same in words."""
    now = standing(budget)
    names = ("amount", "spent", "held", "left")
    return render_to_string(
        "admin/completions/budget/bar.html",
        {"now": now, "each": budget.per_end_user}
        | {name: exact_dollars(getattr(now, name)) for name in names},
    )
