"""Frozen values that cross the driver line. No Django here: drivers, pricing and tests use them bare."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, NamedTuple
from uuid import UUID

NANO = 1_000_000_000  # nano-dollars in a dollar

JSON = dict[str, Any]


class ProviderType(StrEnum):
    """What kind of upstream a provider is: it decides the driver and what a provider record must have."""

    OPENAI = "openai"
    OPENAI_COMPATIBLE = "openai_compatible"
    AZURE_OPENAI = "azure_openai"
    ANTHROPIC = "anthropic"
    DEMO = "demo"


class Operation(StrEnum):
    """What is asked of an upstream: it decides the address and the shapes of body and answer."""

    CHAT = "chat"  # messages -> a message
    COMPLETION = "completion"  # a prompt -> text, OpenAI's older wire
    EMBEDDING = "embedding"  # texts -> vectors


class CacheMode(StrEnum):
    """Which calls the cache may answer, of a model or of a key."""

    DEFAULT = ""  # those that are deterministic by intent: temperature 0, a seed, embeddings
    OFF = "off"
    ON = "on"  # all that do not refuse it
    FORCED = "forced"  # all, whatever a request says


class UsageSource(StrEnum):
    """Who said how many tokens a call used."""

    PROVIDER = "provider"  # the upstream reported it
    COUNTED = "counted"  # we counted what was sent and received
    ESTIMATED = "estimated"  # we counted with a tokenizer that is not the model's own


class Secret:
    """A value that never shows itself.

    Not in repr, str, logs or tracebacks. `reveal()` is the one way to it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret(empty)"

    __str__ = __repr__


class Usage(NamedTuple):
    """Tokens of one call. A part is never added to its whole.

    `prompt` is the whole prompt, of which `cached` was read from the upstream's prompt cache, `cache_write`
    written to it and `audio_prompt` was audio. `completion` is the whole output, of which `reasoning` was
    hidden thought and `audio_completion` was audio.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_prompt: int = 0
    audio_completion: int = 0
    source: UsageSource = UsageSource.PROVIDER
    anomaly: bool = False  # the upstream's own figures made no sense and were replaced by ours

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Tier:
    """Above `above` prompt tokens, `price` (USD per million) holds for every token of the call."""

    above: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per million tokens of one usage class, with the tiers of vendors that price long prompts apart."""

    base: Decimal
    tiers: tuple[Tier, ...] = ()

    def at(self, prompt_tokens: int) -> Decimal:
        price = self.base
        for tier in self.tiers:
            if prompt_tokens > tier.above:
                price = tier.price
        return price


@dataclass(frozen=True, slots=True)
class Price:
    """Unit prices of one model on one day. A class without a rate is priced as the whole it is part of."""

    prompt: Rate
    completion: Rate
    cached: Rate | None = None
    cache_write: Rate | None = None
    reasoning: Rate | None = None
    audio_prompt: Rate | None = None
    audio_completion: Rate | None = None
    source: str = ""  # e.g. "override 2026-11-01" or "genai-prices 0.2.3: openai/gpt-4o"
    # What `pricing` worked out of these rates and uses again; never copied to another price.
    prepared: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to the first content, of silence mid-stream, and for the whole call."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 30.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Quirks:
    """Where a vendor's OpenAI-compatible wire differs from OpenAI's. Facts of `presets.py`."""

    output_bound: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    stream_usage_option: bool = True  # understands stream_options.include_usage
    auth_header: Literal["authorization", "api-key", "x-api-key"] = "authorization"
    lists_models: bool = True  # answers GET /models


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to reach one provider: all that a driver needs, nothing of the ORM."""

    provider: str  # slug
    type: ProviderType
    base_url: str
    api_key: Secret
    headers: Mapping[str, str] = field(default_factory=dict)  # organization, project
    timeouts: Timeouts = Timeouts()
    quirks: Quirks = Quirks()
    # What a driver worked out of this endpoint and uses again; never copied to another one.
    prepared: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)


class CacheRules(NamedTuple):
    """How answers of a model are cached. Seconds; None: as the hub does."""

    mode: CacheMode = CacheMode.DEFAULT
    ttl_seconds: int | None = None
    stale_seconds: int = 0  # past that time it still answers, while a fresh one is fetched
    least_similarity: float | None = None  # of a question that means the same; None: not looked for


CACHE_RULES = CacheRules()


@dataclass(frozen=True, slots=True)
class Target:
    """One candidate for a call: an endpoint and a model of it."""

    endpoint: Endpoint
    provider_id: UUID
    model_id: int
    upstream_model: str  # what the upstream calls it
    public_model: str  # what callers call it
    default_config: Mapping[str, Any] = field(default_factory=dict)
    context_window: int | None = None
    max_output: int | None = None
    capabilities: frozenset[str] = frozenset()
    price: Price | None = None
    cache: CacheRules = CACHE_RULES
    created: int = 0  # when its provider was added: seconds since 1970
    unusable: str = ""  # why this target cannot be called (e.g. its key cannot be decrypted); empty: it can
    key_refused: bool = False  # its provider did not accept our key when it was last heard of


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a provider's own headers last said about one of its limits."""

    limit: int | None
    remaining: int | None
    reset: datetime | None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Requests and tokens limits as a provider last stated them. None where it never did."""

    requests: RateLimit | None = None
    tokens: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the upstream itself lists it."""

    name: str
    context_window: int | None = None
    max_output: int | None = None
    owned_by: str = ""


@dataclass(frozen=True, slots=True)
class Validation:
    """The outcome of a real call with the stored key."""

    ok: bool
    message: str  # for people: what was seen, and what to do about it
    latency_ms: int
    models: int | None = None  # how many models the upstream listed
    auth_failed: bool = False


# What is to be counted of choices beside the first, by their index: text, thought and tool calls in one; of
# the first, what is neither (a function call of the older wire, a transcript).
Others = tuple[tuple[int, str], ...]


class Answer(NamedTuple):
    """A whole non-streamed answer: the upstream's JSON and what the meter needs of it.

    `content`, `reasoning` and `finish_reason` are choice 0's.
    """

    body: JSON
    content: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None  # None: the upstream did not say
    usage_anomaly: bool = False  # it said something that makes no sense
    reasoning: str = ""
    others: Others = ()


class StreamChunk(NamedTuple):
    """One event of a streamed answer: the upstream's JSON and what the meter needs of it.

    `body` is the parsed chunk. `content`, `reasoning`, `tool_calls` are this chunk's delta of choice 0
    (tool_calls in the wire's shape). `usage` is the upstream's running or final total, never a difference.
    """

    body: JSON
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[JSON, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    usage_anomaly: bool = False  # the upstream stated a usage that makes no sense
    others: Others = ()
