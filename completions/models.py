"""Who asks, what came back, and what it cost."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models

from providers.fields import EncryptedTextField
from providers.models import LanguageModel, LLMProvider, slug_validator


class Project(models.Model):
    """A tenant: its keys, its calls and its spend are its own."""

    slug = models.CharField(max_length=64, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=120)
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        blank=True,
        related_name="llm_projects",
        help_text="People who may call the API for this project with their session.",
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["slug"]

    def __str__(self) -> str:
        return self.name or self.slug


class ApiKey(models.Model):
    """A caller's key: `sk-llmhub-<public id>-<secret>`. Only an HMAC of it is stored."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=120, help_text="What the key is for, e.g. 'checkout service'.")
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    secret_hmac = models.CharField(max_length=64, editable=False)
    last4 = models.CharField(max_length=4, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Left empty: never.")
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["project", "name"]
        verbose_name = "API key"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["project", "name"], name="one_key_per_project_and_name"),
        ]

    def __str__(self) -> str:
        return f"{self.name} (…{self.last4})"


class HubSecret(models.Model):
    """A secret the hub made for itself (the pepper of API keys), encrypted like a provider's key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=64, unique=True)
    value = EncryptedTextField()

    def __str__(self) -> str:
        return self.name


class State(models.TextChoices):
    """Where a completion stands. `running` is the only one that is not final."""

    RUNNING = "running", "Running"
    OK = "ok", "OK"
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


class Completion(models.Model):
    """One call: written in state `running` before the upstream is called, and final afterwards."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="Time-ordered (UUID version 7).")
    request_id = models.CharField(max_length=64, db_index=True)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="completions", db_index=False)
    api_key = models.ForeignKey(ApiKey, **LOOSE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, **LOOSE)
    end_user = models.CharField(max_length=200, blank=True, help_text="The caller's own `user` field.")
    surface = models.CharField(max_length=8, help_text="api, v1, ws or python.")
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
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def total_tokens(self) -> int | None:
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens
