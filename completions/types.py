"""Frozen values that cross the service line: who calls, what is asked, what is answered, event by event."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from completions.errors import LLMServiceError
from providers.types import JSON, Operation, Usage


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session, by its key. That is a secret: it is shown nowhere, and written down nowhere."""

    key: str = field(repr=False)


class Caller(NamedTuple):
    """Who pays for a call: a project, through one of its keys, a member's session or a Python call."""

    project_id: int
    project: str  # slug
    api_key_id: int | None = None
    user_id: int | None = None
    surface: str = "python"  # api, v1, ws, python, admin
    request_id: str = ""  # made here when the surface has none
    session: Session | None = None  # whose end is the end of its calls


class CacheControl(StrEnum):
    """What a request says of the cache, in `x-llmhub-cache`."""

    DEFAULT = ""  # as its model and key say
    ON = "on"  # also where it is not deterministic
    OFF = "off"  # neither read nor kept
    REFRESH = "refresh"  # not read; the fresh answer is kept
    ONLY = "only"  # from the cache, or an error


class CacheWish(NamedTuple):
    """A request's own words on the cache."""

    control: CacheControl = CacheControl.DEFAULT
    ttl_seconds: int | None = None  # how long its answer is kept
    by_staff: bool = False  # it counts whatever model and key force
    most_age_seconds: int | None = None  # that a kept answer may have


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked for. `config` holds the parameters of `completions.requests.CONFIG_FIELDS`.

    `model` is a public name, or 'provider/name' to name the provider too; None means the default model of the
    first enabled provider (or of `provider`, a slug).
    """

    messages: Sequence[Mapping[str, Any]]
    model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    provider: str | None = None
    user: str = ""
    cache: str = ""  # a word of CacheControl
    cache_ttl_seconds: int | None = None  # how long its answer is kept


class Call(NamedTuple):
    """A request that was checked: `body` is in OpenAI's shape, without model and stream."""

    caller: Caller
    body: JSON
    model: str | None
    provider: str | None = None
    stream: bool = False
    timeout_seconds: float | None = None
    end_user: str = ""
    operation: Operation = Operation.CHAT
    raw: bytes = b""  # the request as it came, where it came as JSON: what its content is kept as
    cache: CacheWish = CacheWish()


class Standing(NamedTuple):
    """Where one limit of a key stands. `reset_seconds`: until it is restored, if nothing more is used."""

    limit: int
    remaining: int
    reset_seconds: float


class Standings(NamedTuple):
    """Where a key stands, for the headers. None where there is no such limit."""

    requests: Standing | None = None
    tokens: Standing | None = None


class Tokens(NamedTuple):
    """Tokens of one answer."""

    prompt: int
    completion: int
    total: int


class Metadata(NamedTuple):
    """Where an answer came from and what it cost. `cost` is in US dollars, None when no price is known."""

    id: uuid.UUID
    model: str
    provider: str
    timestamp: datetime
    latency_ms: int
    cached: bool
    cost: Decimal | None
    finish_reason: str | None
    attempts: int  # upstream calls made for it
    cache: str = "BYPASS"  # what the cache did, as in the header x-llmhub-cache
    age_seconds: int | None = None  # of a kept answer
    similarity: float | None = None  # of the question that it answered, where that was another
    standings: Standings = Standings()


class LLMResponse(NamedTuple):
    """A whole answer.

    `message` is the upstream's own assistant message (tool calls included), `usage` every class.
    """

    content: str
    tokens: Tokens
    metadata: Metadata
    message: JSON
    usage: Usage


class Started(NamedTuple):
    """The first event of a stream: the call is in the ledger and the upstream has begun to answer."""

    id: uuid.UUID
    model: str
    provider: str
    attempts: int
    cache: str = "BYPASS"  # as in Metadata
    age_seconds: int | None = None
    similarity: float | None = None
    standings: Standings = Standings()


class Delta(NamedTuple):
    """A piece of the answer: text, hidden reasoning, or parts of tool calls in the wire's shape."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[JSON, ...] = ()


class Done(NamedTuple):
    """The last event of a stream that ended well, sent after its row is settled."""

    response: LLMResponse


StreamEvent = Started | Delta | Done


@dataclass(frozen=True, slots=True)
class StreamingCallbacks:
    """What `complete_streaming` calls, each plain or async.

    Every token, then exactly one of the other two.
    """

    on_token: Callable[[str], Awaitable[None] | None]
    on_complete: Callable[[LLMResponse], Awaitable[None] | None]
    on_error: Callable[[LLMServiceError], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """A provider as callers may see it: never its key."""

    slug: str
    name: str
    type: str
    base_url: str
    default_model: str
    models: tuple[str, ...]  # public names
    default_config: Mapping[str, Any]
    health: str


@dataclass(frozen=True, slots=True)
class AvailableModel:
    """A model callers may use, or one that the provider offers and staff have not enabled."""

    id: str  # public name
    provider: str
    upstream_model: str
    context_window: int | None
    max_output: int | None
    capabilities: tuple[str, ...]
    enabled: bool  # callers may use it
    offered: bool | None  # the provider itself lists it; None: it could not be asked
