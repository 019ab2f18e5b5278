"""What is spent, held and left of the budgets that a caller's calls fall under, in their present periods."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from completions.models import Budget, BudgetAlert, BudgetWindow
from completions.periods import Span
from completions.types import Caller
from providers import pricing


@dataclass(frozen=True, slots=True)
class Balance:
    """A budget in its present period. `end_user`: whose share of one per end user; "" when none was named."""

    budget: Budget
    end_user: str
    span: Span
    amount_nano: int
    spent_nano: int
    held_nano: int
    alerts: Sequence[BudgetAlert]

    @property
    def left_nano(self) -> int:
        return max(0, self.amount_nano - self.spent_nano - self.held_nano)


def balances(caller: Caller, end_user: str = "", at: datetime | None = None) -> list[Balance]:
    """The budgets in force of the caller's project, and of the caller's key."""
    budgets = Budget.objects.filter(project_id=caller.project_id, enabled=True)
    mine = budgets.filter(Q(api_key=None) | Q(api_key_id=caller.api_key_id))
    rows = mine.select_related("project", "api_key").defer("webhook_secret").order_by("created_at")
    return [_balance(budget, end_user, at or timezone.now()) for budget in rows]


def _balance(budget: Budget, end_user: str, at: datetime) -> Balance:
    subject = end_user if budget.per_end_user else ""
    nobody = budget.per_end_user and not end_user
    windows = BudgetWindow.objects.filter(budget=budget, subject=subject).order_by("-starts_at")
    span, window = budget.present(None if nobody else windows.first(), at)
    return Balance(
        budget=budget,
        end_user=subject,
        span=span,
        amount_nano=pricing.nano(budget.amount),
        spent_nano=window.spent_nano if window else 0,
        held_nano=window.held_nano if window else 0,
        alerts=tuple(window.alerts.order_by("threshold", "created_at")) if window else (),
    )
