"""Projects, their keys, and the hub's own secrets."""

import uuid
from typing import ClassVar
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from providers.fields import EncryptedTextField
from providers.models import cache_mode_choices, slug_validator


class CacheScope(models.TextChoices):
    """Who shares the answers of a project's calls."""

    PROJECT = "project", "The project: its keys and members"
    KEY = "key", "Each key, or member, for itself"


def cache_scope_choices() -> list[tuple[str, str]]:
    return list(CacheScope.choices)


def default_time_zone() -> str:
    return str(settings.TIME_ZONE)


def validate_time_zone(value: str) -> None:
    if value not in available_timezones():
        raise ValidationError(f"{value!r} is no time zone. Use a name like Europe/Berlin or UTC.")


def validate_names(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValidationError('Write a list of model names, e.g. ["gpt-4o", "local/gemma"].')


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
    time_zone = models.CharField(
        max_length=64,
        default=default_time_zone,
        validators=[validate_time_zone],
        help_text="Where its budgets' days, weeks and months begin.",
    )
    content_days = models.PositiveIntegerField(
        default=30, help_text="Days that prompts and answers are kept. 0: they are never written."
    )
    cache_scope = models.CharField(
        "cached answers are shared by",
        max_length=8,
        choices=cache_scope_choices,
        default=CacheScope.PROJECT,
    )
    cache_group = models.CharField(
        "cache shared with",
        max_length=64,
        blank=True,
        validators=[slug_validator],
        help_text="Projects of one group share their cached answers. Left empty: with no other project.",
    )
    ledger_since = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Calls before it were pruned; their sums stay."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["slug"]

    def __str__(self) -> str:
        return self.name or self.slug


class ApiKey(models.Model):
    """A caller's key: `sk-llmhub-<public id>-<secret>`. Only an HMAC of it is stored.

    After a rotation the secret before still works until `old_valid_until`.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=120, help_text="What the key is for, e.g. 'checkout service'.")
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    secret_hmac = models.CharField(max_length=64, editable=False)
    last4 = models.CharField(max_length=4, editable=False)
    old_public_id = models.CharField(  # noqa: DJ001 - unique: two absent ones must not be equal
        max_length=16, unique=True, null=True, editable=False
    )
    old_secret_hmac = models.CharField(max_length=64, blank=True, editable=False)
    old_valid_until = models.DateTimeField(null=True, editable=False)
    allowed_models = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_names],
        help_text='Public names this key may call, e.g. ["gpt-4o"]. Left empty: all.',
    )
    requests_per_minute = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Left empty: no limit."
    )
    tokens_per_minute = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Left empty: no limit."
    )
    concurrent_calls = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Left empty: no limit."
    )
    log_content = models.BooleanField(
        default=True, help_text="Keep prompts and answers for as long as the project says."
    )
    cache_mode = models.CharField(
        "cache",
        max_length=8,
        blank=True,
        choices=cache_mode_choices,
        help_text="Of this key and the model that is called, the stricter counts.",
    )
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
