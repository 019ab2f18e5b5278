"""Providers, their models and prices: what the hub can call."""

import uuid
from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from providers.errors import DecryptionError
from providers.fields import DollarField, EncryptedTextField
from providers.types import CacheMode, ProviderType

slug_validator = RegexValidator(
    r"\A[a-z0-9]([a-z0-9._-]*[a-z0-9])?\Z",
    "Use lower-case letters, digits, '.', '_' and '-', beginning and ending with a letter or digit.",
)
model_name_validator = RegexValidator(
    r"\A[^\s\x00-\x1f\x7f]+\Z", "A model name has no spaces or control characters."
)

LABELS = {
    ProviderType.OPENAI: "OpenAI",
    ProviderType.OPENAI_COMPATIBLE: "OpenAI-compatible",
    ProviderType.AZURE_OPENAI: "Azure OpenAI",
    ProviderType.ANTHROPIC: "Anthropic",
    ProviderType.DEMO: "Demo (no network)",
}


CACHE_LABELS = {
    CacheMode.DEFAULT: "Deterministic calls: temperature 0, a seed, embeddings",
    CacheMode.OFF: "Off",
    CacheMode.ON: "Every call",
    CacheMode.FORCED: "Every call, whatever its request says",
}


def cache_mode_choices() -> list[tuple[str, str]]:
    return [(str(mode), CACHE_LABELS[mode]) for mode in CacheMode]


def type_choices() -> list[tuple[str, str]]:
    return [(str(kind), LABELS[kind]) for kind in ProviderType]


class Health(models.TextChoices):
    """What the last real contact with a provider said."""

    UNKNOWN = "unknown", "Not checked yet"
    OK = "ok", "Healthy"
    AUTH_FAILED = "auth_failed", "Key refused"
    FAILING = "failing", "Failing"


class KeyState(models.TextChoices):
    """The state of a provider's stored key."""

    SET = "set", "Set"
    NONE = "none", "None"
    UNREADABLE = "unreadable", "Cannot be decrypted"


class LLMProviderQuerySet(models.QuerySet["LLMProvider"]):
    def enabled(self) -> "LLMProviderQuerySet":
        return self.filter(enabled=True)


class LLMProvider(models.Model):
    """One upstream account: where to call, with which key, and which models it may serve.

    Invariants (`providers.checks.provider_problems`): a name, a valid type, a key where the type needs one,
    at least one model, `default_model` among the models, a base_url where the type has none of its own.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.CharField(
        max_length=64,
        unique=True,
        validators=[slug_validator],
        help_text="Short name for URLs and for 'slug/model'.",
    )
    name = models.CharField(max_length=120, help_text="What staff call it.")
    type = models.CharField(max_length=32, choices=type_choices, help_text="How the hub talks to it.")
    preset = models.CharField(
        max_length=32, blank=True, help_text="The vendor; choosing one fills in type and base URL."
    )
    base_url = models.CharField(
        "base URL",
        max_length=500,
        blank=True,
        help_text="e.g. https://api.example.com/v1. Left empty: the type's own.",
    )
    api_key = EncryptedTextField(
        "API key",
        blank=True,
        default="",
        help_text="Stored encrypted; only its last four characters are ever shown.",
    )
    api_key_last4 = models.CharField(max_length=4, blank=True, editable=False)
    organization = models.CharField(max_length=120, blank=True, help_text="OpenAI-Organization header.")
    project = models.CharField(max_length=120, blank=True, help_text="OpenAI-Project header.")
    default_config = models.JSONField(
        default=dict,
        blank=True,
        help_text='Parameters for every call that does not set them, e.g. {"temperature": 0.7}.',
    )
    default_model = models.CharField(
        max_length=200,
        validators=[model_name_validator],
        help_text="One of this provider's models, by its name.",
    )
    connect_timeout_seconds = models.FloatField(default=5.0, validators=[MinValueValidator(0.1)])
    first_token_timeout_seconds = models.FloatField(default=60.0, validators=[MinValueValidator(0.1)])
    idle_timeout_seconds = models.FloatField(default=30.0, validators=[MinValueValidator(0.1)])
    total_timeout_seconds = models.FloatField(default=600.0, validators=[MinValueValidator(0.1)])
    priority = models.PositiveIntegerField(
        default=100, help_text="Where several providers offer one model, the lowest number is called first."
    )
    enabled = models.BooleanField(default=True)
    health = models.CharField(max_length=16, choices=Health.choices, default=Health.UNKNOWN, editable=False)
    health_message = models.CharField(max_length=300, blank=True, editable=False)
    checked_at = models.DateTimeField("last checked", null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = LLMProviderQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["priority", "slug"]
        verbose_name = "LLM provider"

    def __str__(self) -> str:
        return self.name or self.slug

    def save(self, *args: Any, **kwargs: Any) -> None:
        fresh = self.__dict__.get("api_key")
        field = self._meta.get_field("api_key")
        if fresh is not None and not field.stored(self):  # type: ignore[union-attr]
            self.api_key_last4 = fresh[-4:] if len(fresh) >= 12 else ""
            if (fields := kwargs.get("update_fields")) is not None and "api_key" in fields:
                kwargs["update_fields"] = {*fields, "api_key_last4"}
        super().save(*args, **kwargs)

    @property
    def key_state(self) -> KeyState:
        try:
            return KeyState.SET if self.api_key else KeyState.NONE
        except DecryptionError:
            return KeyState.UNREADABLE


class LanguageModel(models.Model):
    """A model of a provider, under the name its upstream uses and the name callers use."""

    provider = models.ForeignKey(LLMProvider, on_delete=models.CASCADE, related_name="models")
    name = models.CharField(
        max_length=200, validators=[model_name_validator], help_text="What the upstream calls it."
    )
    public_name = models.CharField(
        max_length=200,
        blank=True,
        validators=[model_name_validator],
        db_index=True,
        help_text="What callers call it. Left empty: the same.",
    )
    context_window = models.PositiveIntegerField(
        null=True, blank=True, help_text="Tokens, prompt and output together."
    )
    max_output = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens of output at most.")
    capabilities = models.JSONField(
        default=list, blank=True, help_text='e.g. ["chat", "tools", "vision", "json_schema", "embeddings"].'
    )
    cache_mode = models.CharField("cache", max_length=8, blank=True, choices=cache_mode_choices)
    cache_ttl_seconds = models.PositiveIntegerField(
        "answers are kept for",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Seconds. Left empty: as the hub does (LLMHUB_CACHE_TTL_SECONDS).",
    )
    cache_stale_seconds = models.PositiveIntegerField(
        "and answer for longer by",
        default=0,
        help_text="Seconds, while a fresh answer is being fetched. 0: not at all.",
    )
    cache_least_similarity = models.FloatField(
        "like questions, from a similarity of",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.5), MaxValueValidator(1)],
        help_text="Of meaning, from 0.5 to 1, e.g. 0.97 (needs LLMHUB_SEMANTIC_CACHE). Left empty: only "
        "equal questions are answered from the cache.",
    )
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["provider", "name"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["provider", "name"], name="one_row_per_provider_and_model"),
            models.UniqueConstraint(
                fields=["provider", "public_name"], name="one_row_per_provider_and_public_name"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider.slug}/{self.public_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.public_name = self.public_name or self.name
        super().save(*args, **kwargs)


class ModelPrice(models.Model):
    """USD per million tokens of one model from a day on; above the bundled price list.

    A class left empty is priced as the whole it is part of: cached and cache_write as prompt, reasoning as
    completion.
    """

    model = models.ForeignKey(LanguageModel, on_delete=models.CASCADE, related_name="prices")
    valid_from = models.DateField(default=timezone.localdate, help_text="First day (UTC) on which it holds.")
    prompt = DollarField(help_text="USD per million prompt tokens.")
    completion = DollarField(help_text="USD per million output tokens.")
    cached = DollarField(null=True, blank=True, help_text="Prompt tokens read from the provider's cache.")
    cache_write = DollarField(
        null=True, blank=True, help_text="Prompt tokens written to the provider's cache."
    )
    reasoning = DollarField(null=True, blank=True, help_text="Hidden reasoning tokens.")
    audio_prompt = DollarField(null=True, blank=True, help_text="Audio tokens in the prompt.")
    audio_completion = DollarField(null=True, blank=True, help_text="Audio tokens in the output.")

    class Meta:
        ordering: ClassVar[list[str]] = ["model", "-valid_from"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["model", "valid_from"], name="one_price_per_model_and_day"),
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.valid_from}"


class RegistryVersionQuerySet(models.QuerySet["RegistryVersion"]):
    def current(self, row: int) -> int:
        """How often what `row` stands for has changed; 0: never."""
        return self.filter(pk=row).values_list("version", flat=True).first() or 0

    def count_up(self, row: int) -> None:
        """Note a change, in the transaction that makes it."""
        if not self.filter(pk=row).update(version=models.F("version") + 1):
            self.get_or_create(pk=row, defaults={"version": 1})


class RegistryVersion(models.Model):
    """A row that counts changes of what processes keep in memory, so that each notices within a second.

    Row 1 counts those of providers, models and prices; whoever keeps something else has a row of its own.
    """

    version = models.BigIntegerField(default=0)

    objects = RegistryVersionQuerySet.as_manager()

    def __str__(self) -> str:
        return f"version {self.version}"
