"""What `/api` takes and gives. Field by field: nothing of a row leaves or enters that is not named here."""

import json
from decimal import Decimal
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from completions import arithmetic
from completions.models import Completion, CompletionContent, State
from completions.requests import NAME_CAP
from completions.schema import CONFIG, MESSAGES, NAME, TOOLS
from completions.types import CacheWish, CompletionRequest, LLMResponse
from providers.serializers import StrictSerializer
from providers.types import JSON, NANO, Usage

MOST_TOKENS = 10**12


class AsGiven(serializers.Field[Any, Any, Any, Any]):
    """A value that `completions.requests` judges, the same for every surface: DRF only hands it on."""

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(MESSAGES)
class MessagesField(AsGiven):
    """Chat messages."""


@extend_schema_field(CONFIG)
class ConfigField(AsGiven):
    """Parameters of a call."""


@extend_schema_field(TOOLS)
class ToolsField(AsGiven):
    """Functions a model may call."""


@extend_schema_field(NAME)
class NameField(AsGiven):
    """A short text, or null."""


@extend_schema_field({"type": "boolean"})
class FlagField(AsGiven):
    """true or false, and nothing that merely looks like it."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false.")
        return data


class CompletionRequestSerializer(StrictSerializer):
    messages = MessagesField(help_text="The conversation, oldest message first.")
    config = ConfigField(required=False, help_text="Parameters of the call.")
    model = NameField(
        required=False,
        allow_null=True,
        help_text="A model's public name, or provider/name. Left out: the default model.",
    )
    provider = NameField(required=False, allow_null=True, help_text="Slug of the provider to use.")
    user = NameField(
        required=False, allow_null=True, help_text="Your own name for the person behind the call."
    )
    stream = FlagField(required=False, help_text="Answer as server-sent events.")
    cache = CacheWish()  # of the headers

    def request(self) -> CompletionRequest:
        """What was asked for, not yet judged."""
        given = self.validated_data
        return CompletionRequest(
            messages=given["messages"],
            model=given.get("model"),
            config=given.get("config", {}),
            provider=given.get("provider"),
            user=given.get("user") or "",
            cache=self.cache.control,
            cache_ttl_seconds=self.cache.ttl_seconds,
        )


class TicketSerializer(serializers.Serializer[Any]):
    ticket = serializers.CharField(source="text", help_text="Good for one websocket.")
    expires_at = serializers.DateTimeField()


class TokensSerializer(serializers.Serializer[Any]):
    prompt = serializers.IntegerField()
    completion = serializers.IntegerField()
    total = serializers.IntegerField()


class MetadataSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField(help_text="The completion, as in GET /api/completions/{id}/.")
    model = serializers.CharField()
    provider = serializers.CharField()
    timestamp = serializers.DateTimeField()
    latency_ms = serializers.IntegerField()
    cached = serializers.BooleanField()
    cost = serializers.CharField(
        allow_null=True, help_text="US dollars as a decimal text; null: no price known."
    )
    finish_reason = serializers.CharField(allow_null=True)


class CompletionResponseSerializer(serializers.Serializer[Any]):
    content = serializers.CharField()
    tokens = TokensSerializer()
    metadata = MetadataSerializer()
    message = serializers.DictField(help_text="The assistant's whole message, tool calls included.")


def dollars(amount: Decimal | None) -> str | None:
    """US dollars as decimal text without exponent, e.g. "0.0001375"."""
    if amount is None:
        return None
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def response_body(response: LLMResponse) -> JSON:
    """An answer as CompletionResponseSerializer documents it."""
    tokens, metadata = response.tokens, response.metadata
    return {
        "content": response.content,
        "tokens": {"prompt": tokens.prompt, "completion": tokens.completion, "total": tokens.total},
        "metadata": {
            "id": str(metadata.id),
            "model": metadata.model,
            "provider": metadata.provider,
            "timestamp": metadata.timestamp.isoformat(),
            "latency_ms": metadata.latency_ms,
            "cached": metadata.cached,
            "cost": dollars(metadata.cost),
            "finish_reason": metadata.finish_reason,
        },
        "message": response.message,
    }


class CompletionSerializer(serializers.ModelSerializer[Completion]):
    """A row of the ledger."""

    cost = serializers.SerializerMethodField(help_text="US dollars as a decimal text; null: no price known.")
    saved = serializers.SerializerMethodField(help_text="What it had cost without the cache, in US dollars.")
    user = serializers.CharField(source="end_user", help_text="Your own name for the person behind the call.")
    provider = serializers.CharField(source="provider_slug")
    total_tokens = serializers.IntegerField(allow_null=True)

    class Meta:
        model = Completion
        fields: ClassVar[list[str]] = [
            "id", "request_id", "state", "requested_model", "model", "provider", "surface", "stream", "user",
            "finish_reason", "error_code", "error_message", "attempts", "prompt_tokens", "cached_tokens",
            "cache_write_tokens", "completion_tokens", "reasoning_tokens", "total_tokens", "usage_source",
            "cost", "cache", "saved", "created_at", "finished_at", "first_token_ms", "latency_ms",
        ]  # fmt: skip
        read_only_fields = fields

    def get_saved(self, row: Completion) -> str:
        return dollars(Decimal(row.saved_nano_usd) / NANO) or "0"

    def get_cost(self, row: Completion) -> str | None:
        cost = arithmetic.current_cost(row)
        return None if cost is None else dollars(Decimal(cost) / NANO)


class ContentSerializer(serializers.Serializer[Any]):
    """What was asked and what was answered, as JSON."""

    request = serializers.DictField(help_text="The request's body: messages and parameters.")
    response = serializers.DictField(help_text="The assistant's message.")


class CompletionDetailSerializer(CompletionSerializer):
    """A row of the ledger with prompt and answer."""

    content = serializers.SerializerMethodField(
        help_text="Prompt and answer; null: never written, expired or erased."
    )

    class Meta(CompletionSerializer.Meta):
        fields: ClassVar[list[str]] = [*CompletionSerializer.Meta.fields, "content"]
        read_only_fields = fields

    @extend_schema_field(ContentSerializer(allow_null=True))
    def get_content(self, row: Completion) -> JSON | None:
        found = CompletionContent.objects.filter(pk=row.pk).first()
        if found is None:
            return None
        return {"request": json.loads(found.request), "response": json.loads(found.response)}


class CompletionFilterSerializer(StrictSerializer):
    """Query parameters of the list of completions."""

    model = serializers.CharField(
        required=False, help_text="As the call named it, or as the upstream calls it."
    )
    state = serializers.ChoiceField(required=False, choices=State.choices)
    since = serializers.DateTimeField(required=False, help_text="Made at or after this time (ISO 8601).")
    until = serializers.DateTimeField(required=False, help_text="Made before this time (ISO 8601).")


class ModelFilterSerializer(StrictSerializer):
    provider = serializers.CharField(required=False, help_text="Slug: only this provider's models.")


class AvailableModelSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="What to send as `model`.")
    provider = serializers.CharField()
    context_window = serializers.IntegerField(allow_null=True)
    max_output = serializers.IntegerField(allow_null=True)
    capabilities = serializers.ListField(child=serializers.CharField())


class AvailableModelsSerializer(serializers.Serializer[Any]):
    results = AvailableModelSerializer(many=True)


class AvailableProviderSerializer(serializers.Serializer[Any]):
    slug = serializers.CharField()
    name = serializers.CharField()
    type = serializers.CharField()
    default_model = serializers.CharField()
    models = serializers.ListField(child=serializers.CharField())
    health = serializers.CharField(help_text="What the last check said: ok, auth_failed, failing or unknown.")


class AvailableProvidersSerializer(serializers.Serializer[Any]):
    results = AvailableProviderSerializer(many=True)


class RateLimitSerializer(serializers.Serializer[Any]):
    remaining = serializers.IntegerField(allow_null=True)
    reset = serializers.DateTimeField(allow_null=True)
    limit = serializers.IntegerField(allow_null=True)


class ProviderStatusSerializer(serializers.Serializer[Any]):
    is_valid = serializers.BooleanField(  # type: ignore[assignment]
        help_text="The provider answered, and accepts its stored key."
    )
    provider = serializers.CharField()
    message = serializers.CharField(help_text="What was seen.")
    checked_at = serializers.DateTimeField(help_text="When: an outcome is kept for a few seconds.")
    rate_limit = RateLimitSerializer(
        allow_null=True, help_text="Requests, as the provider's own headers last said; null: it never did."
    )
    token_limit = RateLimitSerializer(allow_null=True, help_text="The same of tokens.")


class TokenCountQuerySerializer(StrictSerializer):
    text = serializers.CharField(allow_blank=True, trim_whitespace=False)
    model = serializers.CharField(required=False, max_length=NAME_CAP, help_text="Whose tokenizer to use.")


class TokenCountRequestSerializer(StrictSerializer):
    """Either `text`, or `messages` (with `tools`)."""

    text = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    messages = MessagesField(required=False)
    tools = ToolsField(required=False)
    model = serializers.CharField(required=False, max_length=NAME_CAP, help_text="Whose tokenizer to use.")

    def validate(self, attrs: JSON) -> JSON:
        if ("text" in attrs) == ("messages" in attrs):
            raise serializers.ValidationError({"text": "Give either text or messages."})
        if "tools" in attrs and "messages" not in attrs:
            raise serializers.ValidationError({"tools": "Tools are counted together with messages."})
        return attrs


class TokenCountSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    exact = serializers.BooleanField(
        help_text="false: an estimate, by a tokenizer that is not the model's own."
    )


class CostQuerySerializer(StrictSerializer):
    """Tokens by class; a part (cached, cache_write, reasoning) is contained in its whole."""

    model = serializers.CharField(max_length=NAME_CAP, help_text="Whose price to use.")
    prompt_tokens = serializers.IntegerField(required=False, min_value=0, max_value=MOST_TOKENS)
    completion_tokens = serializers.IntegerField(required=False, min_value=0, max_value=MOST_TOKENS)
    cached_tokens = serializers.IntegerField(required=False, min_value=0, max_value=MOST_TOKENS)
    cache_write_tokens = serializers.IntegerField(required=False, min_value=0, max_value=MOST_TOKENS)
    reasoning_tokens = serializers.IntegerField(required=False, min_value=0, max_value=MOST_TOKENS)

    def validate(self, attrs: JSON) -> JSON:
        if not {"prompt_tokens", "completion_tokens"} & attrs.keys():
            raise serializers.ValidationError({"prompt_tokens": "Give prompt_tokens or completion_tokens."})
        prompt, completion = attrs.get("prompt_tokens", 0), attrs.get("completion_tokens", 0)
        if attrs.get("cached_tokens", 0) + attrs.get("cache_write_tokens", 0) > prompt:
            raise serializers.ValidationError({"cached_tokens": "More than the prompt they are part of."})
        if attrs.get("reasoning_tokens", 0) > completion:
            raise serializers.ValidationError(
                {"reasoning_tokens": "More than the completion they are part of."}
            )
        return attrs

    def usage(self) -> Usage:
        given = self.validated_data
        return Usage(
            prompt=given.get("prompt_tokens", 0),
            completion=given.get("completion_tokens", 0),
            cached=given.get("cached_tokens", 0),
            cache_write=given.get("cache_write_tokens", 0),
            reasoning=given.get("reasoning_tokens", 0),
        )


class CostRequestSerializer(CostQuerySerializer):
    """Tokens by class, or `messages` with `max_tokens`: the most that call can cost."""

    messages = MessagesField(required=False)
    tools = ToolsField(required=False)
    max_tokens = serializers.IntegerField(required=False, min_value=1, max_value=MOST_TOKENS)

    def validate(self, attrs: JSON) -> JSON:
        if "messages" not in attrs:
            return super().validate(attrs)
        if tokens := sorted(name for name in attrs if name.endswith("_tokens") and name != "max_tokens"):
            raise serializers.ValidationError({tokens[0]: "Give either tokens or messages."})
        if "max_tokens" not in attrs:
            raise serializers.ValidationError(
                {"max_tokens": "Needed with messages: the most output to pay for."}
            )
        return attrs


class CostSerializer(serializers.Serializer[Any]):
    cost = serializers.CharField(help_text="A decimal text, exact to the nano-dollar.")
    currency = serializers.ChoiceField(choices=["USD"])
    model = serializers.CharField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    exact = serializers.BooleanField(help_text="false: the tokens of the messages are estimated.")
