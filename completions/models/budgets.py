"""Budgets, their periods, what calls hold and spend of them, and the alerts they raise.

Windows and charges are written by the ledger alone.
"""

import uuid
from datetime import datetime
from typing import ClassVar
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from completions.models.accounts import ApiKey, Project
from completions.periods import Period, Span, present, span_of
from completions.webhooks import webhook_problem
from providers.fields import DollarField, EncryptedTextField

PERIODS = {
    Period.DAY: "Day",
    Period.WEEK: "Week (from Monday)",
    Period.MONTH: "Month",
    Period.TOTAL: "Total, never anew",
}


def period_choices() -> list[tuple[str, str]]:
    return [(str(period), PERIODS[period]) for period in Period]


def default_thresholds() -> list[int]:
    return [50, 80, 100]


def validate_thresholds(value: object) -> None:
    fits = isinstance(value, list) and all(
        isinstance(mark, int) and not isinstance(mark, bool) and 1 <= mark <= 1000 for mark in value
    )
    if not fits:
        raise ValidationError("Write a list of whole percentages from 1 to 1000, e.g. [50, 80, 100].")


class Budget(models.Model):
    """A limit on spend per period: of a project, of one of its keys, or of each of its end users."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="budgets")
    api_key = models.ForeignKey(
        ApiKey,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="budgets",
        verbose_name="API key",
        help_text="Left empty: the whole project.",
    )
    per_end_user = models.BooleanField(
        "per end user",
        default=False,
        help_text="Each end user (the `user` field of a call) has this amount for themselves.",
    )
    amount = DollarField(validators=[MinValueValidator(0)], help_text="US dollars per period.")
    period = models.CharField(max_length=8, choices=period_choices, default=Period.MONTH)
    hard = models.BooleanField(default=True, help_text="Refuse calls that could exceed it; else only alert.")
    thresholds = models.JSONField(
        default=default_thresholds,
        blank=True,
        validators=[validate_thresholds],
        help_text="Percentages of the amount at which an alert is raised.",
    )
    webhook_url = models.CharField(
        "webhook URL", max_length=500, blank=True, help_text="Gets each alert as a signed POST."
    )
    webhook_secret = EncryptedTextField(
        blank=True, default="", help_text="Signs the webhook's posts (HMAC-SHA256)."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["project", "created_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["api_key", "period", "per_end_user"],
                condition=models.Q(api_key__isnull=False),
                name="one_budget_per_key_and_period",
                violation_error_message="This key has a budget of this period already.",
            ),
            models.UniqueConstraint(
                fields=["project", "period", "per_end_user"],
                condition=models.Q(api_key=None),
                name="one_budget_per_project_and_period",
                violation_error_message="This project has a budget of this period already.",
            ),
        ]

    def __str__(self) -> str:
        whose = f"key {self.api_key.name}" if self.api_key else f"project {self.project.slug}"
        each = ", each end user" if self.per_end_user else ""
        return f"${self.amount.normalize():f} per {self.period} of {whose}{each}"

    def clean(self) -> None:
        if self.api_key is not None and self.api_key.project_id != self.project_id:
            raise ValidationError({"api_key": "This key belongs to another project."})
        if self.webhook_url and (problem := webhook_problem(self.webhook_url)):
            raise ValidationError({"webhook_url": problem})

    def calendar_span(self, at: datetime) -> Span:
        """The period of `at`, as the project's time zone has it now."""
        return span_of(Period(self.period), at, ZoneInfo(self.project.time_zone))

    def present(self, latest: "BudgetWindow | None", at: datetime) -> tuple[Span, "BudgetWindow | None"]:
        """The period that counts at `at`, and its window if it was begun: by the rule of the ledger.

        `latest`: of the windows of whom it is about, the one that begins last.
        """
        span = present(latest.span if latest else None, self.calendar_span(at), at)
        return span, latest if latest is not None and latest.span == span else None


class BudgetWindow(models.Model):
    """One period of a budget (and of one end user, where it is per end user)."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="windows")
    subject = models.CharField(max_length=200, blank=True, help_text="The end user; empty: everybody.")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True)
    spent_nano = models.BigIntegerField(default=0)
    held_nano = models.BigIntegerField(default=0)

    class Meta:
        ordering: ClassVar[list[str]] = ["-starts_at"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["budget", "-starts_at"], name="window_budget_newest"),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["budget", "subject", "starts_at"], name="one_window_per_period"),
            models.CheckConstraint(condition=models.Q(spent_nano__gte=0), name="window_spent_not_negative"),
            models.CheckConstraint(condition=models.Q(held_nano__gte=0), name="window_held_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.budget} from {self.starts_at:%Y-%m-%d}"

    @property
    def span(self) -> Span:
        return Span(self.starts_at, self.ends_at)


class Charge(models.Model):
    """What one completion holds of one window (`cost_nano` empty), then what it settled for."""

    completion = models.ForeignKey(
        "Completion", on_delete=models.CASCADE, related_name="charges", db_index=False
    )
    window = models.ForeignKey(BudgetWindow, on_delete=models.CASCADE, related_name="charges")
    hold_nano = models.BigIntegerField()
    cost_nano = models.BigIntegerField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["completion", "window"], name="one_charge_per_window"),
        ]

    def __str__(self) -> str:
        return f"{self.completion_id} on {self.window_id}"


class BudgetAlert(models.Model):
    """A threshold of an amount that a window's spend has reached, and what became of its webhook."""

    window = models.ForeignKey(BudgetWindow, on_delete=models.CASCADE, related_name="alerts")
    threshold = models.PositiveIntegerField(help_text="Per cent of the amount.")
    spent_nano = models.BigIntegerField()
    amount_nano = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    deliver_at = models.DateTimeField(null=True, db_index=True, help_text="Next try; empty: nothing to do.")
    delivered_at = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    last_error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["window", "threshold", "amount_nano"], name="one_alert_per_amount"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.threshold} % of {self.window}"
