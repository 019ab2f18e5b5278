"""The ledger's rows: calls, their attempts, corrections and contents, and the processes that wrote them."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models

from completions.models.accounts import ApiKey, Project
from providers.models import LanguageModel, LLMProvider
from providers.types import Usage


class State(models.TextChoices):
    """Where a completion stands. `running` is the only one that is not final."""

    RUNNING = "running", "Running"
    OK = "ok", "OK"
    COALESCED = "coalesced", "Coalesced"
    CANCELLED = "cancelled", "Cancelled"
    CLIENT_GONE = "client_gone", "Client gone"
    CLIENT_SLOW = "client_slow", "Client too slow"
    UPSTREAM_ERROR = "upstream_error", "Upstream error"
    UPSTREAM_TRUNCATED = "upstream_truncated", "Upstream truncated"
    UPSTREAM_INVALID = "upstream_invalid", "Upstream invalid"
    TIMEOUT_CONNECT = "timeout_connect", "Timeout: connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token", "Timeout: first token"
    TIMEOUT_IDLE = "timeout_idle", "Timeout: silence"
    TIMEOUT_TOTAL = "timeout_total", "Timeout: total"
    SHUTDOWN = "shutdown", "Shutdown"
    RECOVERED = "recovered", "Recovered"


# What `Completion.cache` says of a call that needed no upstream call of its own.
SPARED = ("HIT", "STALE", "SEMANTIC", "COALESCED")

# A ledger row outlives what it points to, and deleting a provider must not search millions of rows for it:
# the reference is loose (no constraint, no index), and the row keeps the names it needs beside it.
LOOSE: dict[str, Any] = {
    "null": True,
    "on_delete": models.DO_NOTHING,
    "db_constraint": False,
    "db_index": False,
}


def state_choices() -> list[tuple[str, str]]:
    return list(State.choices)


class Metered(models.Model):
    """What a call, or one attempt of it, used and cost, and the unit prices it was billed with."""

    prompt_tokens = models.BigIntegerField(null=True)
    cached_tokens = models.BigIntegerField(null=True)
    cache_write_tokens = models.BigIntegerField(null=True)
    audio_prompt_tokens = models.BigIntegerField(null=True)
    completion_tokens = models.BigIntegerField(null=True)
    reasoning_tokens = models.BigIntegerField(null=True)
    audio_completion_tokens = models.BigIntegerField(null=True)
    usage_source = models.CharField(max_length=12, blank=True, help_text="provider, counted or estimated.")
    usage_anomaly = models.BooleanField(default=False)
    cost_nano_usd = models.BigIntegerField(
        "cost (nano-dollars)", null=True, help_text="Empty: no price known."
    )
    price_source = models.CharField(max_length=120, blank=True)
    prices = models.TextField(blank=True, help_text="The unit prices it was billed with, as JSON.")

    class Meta:
        abstract = True

    @property
    def total_tokens(self) -> int | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens

    @property
    def usage(self) -> Usage | None:
        """The tokens that the row holds; None: it has none."""
        if self.prompt_tokens is None:
            return None
        return Usage(
            prompt=self.prompt_tokens,
            completion=self.completion_tokens or 0,
            cached=self.cached_tokens or 0,
            cache_write=self.cache_write_tokens or 0,
            reasoning=self.reasoning_tokens or 0,
            audio_prompt=self.audio_prompt_tokens or 0,
            audio_completion=self.audio_completion_tokens or 0,
        )


class Completion(Metered):
    """One call: written in state `running` before the upstream is called, and final afterwards."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="Time-ordered (UUID version 7).")
    request_id = models.CharField(max_length=64, db_index=True)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="completions", db_index=False)
    api_key = models.ForeignKey(ApiKey, **LOOSE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, **LOOSE)
    end_user = models.CharField(max_length=200, blank=True, help_text="The caller's own `user` field.")
    surface = models.CharField(max_length=8, help_text="api, v1, ws, python or admin.")
    operation = models.CharField(
        max_length=12, default="chat", help_text="chat, completion (OpenAI's older wire) or embedding."
    )
    requested_model = models.CharField(max_length=200, help_text="As the caller named it.")
    provider = models.ForeignKey(LLMProvider, **LOOSE)
    provider_slug = models.CharField(max_length=64, blank=True)
    language_model = models.ForeignKey(LanguageModel, **LOOSE)
    model = models.CharField(max_length=200, blank=True, help_text="As the upstream calls it.")
    stream = models.BooleanField(default=False)
    state = models.CharField(max_length=24, choices=state_choices, default=State.RUNNING)
    finish_reason = models.CharField(max_length=32, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Upstream calls made for it.")
    cache = models.CharField(
        max_length=10,
        blank=True,
        help_text="What the cache did: HIT, STALE, SEMANTIC, COALESCED, MISS, PARTIAL; empty: not asked.",
    )
    saved_nano_usd = models.BigIntegerField(
        "saved (nano-dollars)", default=0, help_text="What the answer had cost without the cache."
    )
    cached_from = models.UUIDField(null=True, help_text="The call whose answer was given.")
    hold_nano = models.BigIntegerField(default=0, help_text="Held on every budget while it ran.")
    epoch_id = models.BigIntegerField(null=True, help_text="The process that wrote it.")
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    first_token_ms = models.IntegerField(null=True)
    latency_ms = models.IntegerField(null=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["project", "-id"], name="completion_project_newest"),
            models.Index(fields=["created_at"], name="completion_created"),
            models.Index(fields=["state"], name="completion_running", condition=models.Q(state="running")),
            models.Index(
                fields=["created_at"],
                name="completion_unpriced",
                condition=models.Q(cost_nano_usd=None) & ~models.Q(state="running"),
            ),
            models.Index(
                fields=["cached_from", "-id"],
                name="completion_cached_from",
                condition=models.Q(cached_from__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Attempt(Metered):
    """One upstream call of a completion, failed ones too: providers bill them.

    The completion's cost is their sum.
    """

    completion = models.ForeignKey(
        Completion, on_delete=models.CASCADE, related_name="attempt_rows", db_index=False
    )
    number = models.PositiveSmallIntegerField(help_text="From 1.")
    provider_slug = models.CharField(max_length=64)
    model = models.CharField(max_length=200, help_text="As the upstream calls it.")
    state = models.CharField(max_length=24, choices=state_choices)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    status = models.PositiveSmallIntegerField(null=True, help_text="HTTP status, where the upstream refused.")
    started_ms = models.IntegerField(help_text="After the call began.")
    latency_ms = models.IntegerField()

    class Meta:
        ordering: ClassVar[list[str]] = ["completion", "number"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["completion", "number"], name="one_attempt_per_number"),
        ]

    def __str__(self) -> str:
        return f"{self.completion_id} attempt {self.number}"


class CompletionContent(models.Model):
    """Prompt and answer of a call: kept apart from the money, for a time of its own, erasable."""

    completion = models.OneToOneField(
        Completion, primary_key=True, on_delete=models.CASCADE, related_name="content"
    )
    request = models.TextField(help_text="The request's body as JSON.")
    response = models.TextField(help_text="The assistant's message as JSON.")
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return str(self.completion_id)


class AdjustmentKind(models.TextChoices):
    """Why a settled cost was corrected."""

    REPRICE = "reprice", "Repriced"
    LATE = "late", "Settled late"


class Adjustment(models.Model):
    """A correction of a settled cost. The row it corrects stays as it was."""

    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="adjustments")
    kind = models.CharField(max_length=12, choices=AdjustmentKind.choices)
    amount_nano = models.BigIntegerField(help_text="Added to the cost; negative: taken off.")
    prices = models.TextField(blank=True, help_text="The unit prices it was worked out with, as JSON.")
    price_source = models.CharField(max_length=120, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.kind} of {self.completion_id}"


class Epoch(models.Model):
    """One life of one process that writes the ledger. `heartbeat_at` tells the others that it lives."""

    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, help_text="It ended in order, or its rows were recovered.")

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["heartbeat_at"], name="epoch_living", condition=models.Q(ended_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
