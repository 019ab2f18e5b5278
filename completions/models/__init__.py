"""Who asks, what came back, and what it cost."""

from completions.models.accounts import ApiKey, CacheScope, HubSecret, Project
from completions.models.budgets import Budget, BudgetAlert, BudgetWindow, Charge
from completions.models.cached import CachedResponse
from completions.models.calls import (
    SPARED,
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
    "SPARED",
    "Adjustment",
    "AdjustmentKind",
    "ApiKey",
    "Attempt",
    "Budget",
    "BudgetAlert",
    "BudgetWindow",
    "CacheScope",
    "CachedResponse",
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
