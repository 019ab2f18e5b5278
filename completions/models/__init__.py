"""Who asks, what came back, and what it cost."""

from completions.models.accounts import ApiKey, HubSecret, Project
from completions.models.budgets import Budget, BudgetAlert, BudgetWindow, Charge
from completions.models.calls import (
    Adjustment,
    AdjustmentKind,
    Attempt,
    Completion,
    CompletionContent,
    Epoch,
    State,
    state_choices,
)
from completions.models.operations import Job, UsageRollup

__all__ = [
    "Adjustment",
    "AdjustmentKind",
    "ApiKey",
    "Attempt",
    "Budget",
    "BudgetAlert",
    "BudgetWindow",
    "Charge",
    "Completion",
    "CompletionContent",
    "Epoch",
    "HubSecret",
    "Job",
    "Project",
    "State",
    "UsageRollup",
    "state_choices",
]
