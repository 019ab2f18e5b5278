"""Providers, models and prices as staff read and write them through `/api/admin/`."""

from typing import Any, ClassVar

import orjson
from django.db import transaction
from rest_framework import serializers

from providers.checks import provider_problems
from providers.models import LanguageModel, LLMProvider, ModelPrice, type_choices

SHAPE = ("name", "type", "preset", "base_url", "default_model", "default_config")


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt field must not be ignored in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (
            unknown := sorted(str(name) for name in data.keys() - self.fields.keys())
        ):
            known = ", ".join(name for name, field in self.fields.items() if not field.read_only)
            raise serializers.ValidationError(
                {name[:64]: [f"Unknown field. Known are: {known}."] for name in unknown}
            )
        return super().to_internal_value(data)


class PlainJSON:
    """Validator: JSON that every database can store."""

    def __call__(self, value: Any) -> None:
        try:
            text = orjson.dumps(value)
        except TypeError as error:
            raise serializers.ValidationError(f"Cannot be stored as JSON: {error}.") from None
        if b"\\u0000" in text:
            raise serializers.ValidationError("Must not hold null characters.")


class DollarsField(serializers.DecimalField):
    """USD per million tokens, exact to nine places."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_digits=18, decimal_places=9, min_value=0, normalize_output=True, **options)


class ModelPriceSerializer(StrictSerializer, serializers.ModelSerializer[ModelPrice]):
    prompt = DollarsField()
    completion = DollarsField()
    cached = DollarsField(required=False, allow_null=True)
    cache_write = DollarsField(required=False, allow_null=True)
    reasoning = DollarsField(required=False, allow_null=True)
    audio_prompt = DollarsField(required=False, allow_null=True)
    audio_completion = DollarsField(required=False, allow_null=True)

    class Meta:
        model = ModelPrice
        fields: ClassVar[list[str]] = [
            "valid_from", "prompt", "completion", "cached", "cache_write", "reasoning", "audio_prompt",
            "audio_completion",
        ]  # fmt: skip


class LanguageModelSerializer(StrictSerializer, serializers.ModelSerializer[LanguageModel]):
    prices = ModelPriceSerializer(
        many=True,
        required=False,
        help_text="Every dated price of this model; left out: they stay as they are.",
    )

    class Meta:
        model = LanguageModel
        fields: ClassVar[list[str]] = [
            "name", "public_name", "context_window", "max_output", "capabilities", "cache_mode",
            "cache_ttl_seconds", "cache_stale_seconds", "cache_least_similarity", "enabled", "prices",
        ]  # fmt: skip
        extra_kwargs: ClassVar[dict[str, Any]] = {"capabilities": {"validators": [PlainJSON()]}}

    def validate_capabilities(self, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise serializers.ValidationError('Write a list of words, e.g. ["chat", "tools"].')
        return value

    def validate_prices(self, prices: list[dict[str, Any]]) -> list[dict[str, Any]]:
        days = [price.get("valid_from") for price in prices]
        if len(set(days)) < len(days):
            raise serializers.ValidationError("Two prices begin on the same day.")
        return prices


class ProviderSerializer(StrictSerializer, serializers.ModelSerializer[LLMProvider]):
    """`models` is the whole list: one not in it is removed. `api_key` left out keeps the stored one."""

    type = serializers.ChoiceField(
        choices=type_choices(),
        error_messages={
            "invalid_choice": "Unknown provider type '{input}'. Use one of: "
            + ", ".join(name for name, _ in type_choices())
            + "."
        },
    )
    api_key = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=4096,
        help_text="Stored encrypted and never shown. Left out: stays as it is. Empty: removed.",
    )
    key_state = serializers.CharField(read_only=True, help_text="set, none or unreadable.")
    models = LanguageModelSerializer(many=True, required=False)

    class Meta:
        model = LLMProvider
        fields: ClassVar[list[str]] = [
            "id", "slug", "name", "type", "preset", "base_url", "api_key", "api_key_last4", "key_state",
            "organization", "project", "default_config", "default_model", "models", "connect_timeout_seconds",
            "first_token_timeout_seconds", "idle_timeout_seconds", "total_timeout_seconds", "priority",
            "enabled", "health", "health_message", "checked_at", "created_at", "updated_at",
        ]  # fmt: skip
        read_only_fields: ClassVar[list[str]] = [
            "id", "api_key_last4", "health", "health_message", "checked_at", "created_at", "updated_at",
        ]  # fmt: skip
        extra_kwargs: ClassVar[dict[str, Any]] = {"default_config": {"validators": [PlainJSON()]}}

    def validate_models(self, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for field in ("name", "public_name"):
            names = [model.get(field) or model["name"] for model in models]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise serializers.ValidationError(f"{field} {twice!r} is given twice.")
        return models

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        row = self.instance if isinstance(self.instance, LLMProvider) else None
        values = {name: attrs.get(name, getattr(row, name, None)) for name in SHAPE}
        problems = provider_problems(values, self._model_names(attrs, row), has_key=_has_key(attrs, row))
        if problems:
            raise serializers.ValidationError({name: [problem] for name, problem in problems.items()})
        return attrs

    def _model_names(self, attrs: dict[str, Any], row: LLMProvider | None) -> list[str]:
        if "models" in attrs:
            return [model["name"] for model in attrs["models"]]
        return [] if row is None else list(row.models.values_list("name", flat=True))

    @transaction.atomic
    def create(self, validated_data: dict[str, Any]) -> LLMProvider:
        models = validated_data.pop("models", [])
        row = LLMProvider.objects.create(**validated_data)
        _write_models(row, models)
        return row

    @transaction.atomic
    def update(self, instance: LLMProvider, validated_data: dict[str, Any]) -> LLMProvider:
        models = validated_data.pop("models", None)
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save()
        if models is not None:
            _write_models(instance, models)
        return instance


def _has_key(attrs: dict[str, Any], row: LLMProvider | None) -> bool:
    if "api_key" in attrs:
        return bool(attrs["api_key"])
    return row is not None and row.key_state != "none"


def _write_models(provider: LLMProvider, models: list[dict[str, Any]]) -> None:
    provider.models.exclude(name__in=[model["name"] for model in models]).delete()
    _set_aside_public_names(provider, models)
    for model in models:
        facts = dict(model)
        prices = facts.pop("prices", None)
        name = facts.pop("name")
        row, _ = LanguageModel.objects.update_or_create(provider=provider, name=name, defaults=facts)
        if prices is not None:
            row.prices.all().delete()
            for price in prices:
                ModelPrice.objects.create(model=row, **price)


def _set_aside_public_names(provider: LLMProvider, models: list[dict[str, Any]]) -> None:
    """Two models may swap their public names: no moment of the change may hold one name twice."""
    wanted = {model["name"]: model.get("public_name") for model in models}
    for row in provider.models.all():
        if wanted.get(row.name) and wanted[row.name] != row.public_name:
            LanguageModel.objects.filter(pk=row.pk).update(public_name=f"\N{HORIZONTAL ELLIPSIS}{row.pk}")


class CheckSerializer(serializers.Serializer[Any]):
    """What a real call to a provider saw."""

    ok = serializers.BooleanField()
    message = serializers.CharField()
    latency_ms = serializers.IntegerField()
    models = serializers.IntegerField(allow_null=True, help_text="How many models it lists.")
    auth_failed = serializers.BooleanField()


class SyncSerializer(serializers.Serializer[Any]):
    """What a sync of models did. New models are added disabled."""

    added = serializers.ListField(child=serializers.CharField())
    known = serializers.ListField(child=serializers.CharField())
    missing = serializers.ListField(
        child=serializers.CharField(), help_text="Ours, which it no longer lists."
    )
