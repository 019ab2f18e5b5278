"""LLMService: the hub as a Python API. Every surface calls it; a call from Python has the same ledger row.

Each call exists twice: sync (`complete`) and async (`acomplete`). All raise only the tree of
`completions.errors`.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings

from completions import keys, pipeline, requests, tokens
from completions.answering import Answering
from completions.bridge import run_sync
from completions.errors import (
    InvalidRequestError,
    LLMServiceError,
    ModelNotFoundError,
    PermissionDeniedError,
    UnpricedModelError,
)
from completions.models import Project
from completions.tokens import TokenCount
from completions.types import (
    AvailableModel,
    Call,
    Caller,
    CompletionRequest,
    Delta,
    Done,
    LLMResponse,
    ProviderInfo,
    StreamEvent,
    StreamingCallbacks,
)
from providers import pricing, rate_limits, upstreams
from providers.drivers import driver_for
from providers.errors import UpstreamError
from providers.registry import ProviderFacts, Snapshot, asnapshot, snapshot
from providers.types import ModelInfo, RateLimits, Target, Usage, Validation


class LLMService:
    """The hub for one caller.

    Surfaces pass the `caller` they authenticated; Python code names a `project` by its slug, or none for
    LLMHUB_DEFAULT_PROJECT. A request is a `CompletionRequest`, or a mapping of its fields.
    """

    def __init__(self, caller: Caller | None = None, *, project: str | None = None) -> None:
        self._caller = caller
        self._project = project

    # --- completions

    async def start(self, request: CompletionRequest | Mapping[str, Any], *, stream: bool) -> Answering:
        """The running call, for who reads its chunks: to their end, or else it is to be cancelled."""
        return await pipeline.start(await self._call(request, stream=stream))

    async def acomplete(self, request: CompletionRequest | Mapping[str, Any]) -> LLMResponse:
        """The whole answer, once its row is settled."""
        return await (await self.start(request, stream=False)).answer()

    def complete(self, request: CompletionRequest | Mapping[str, Any]) -> LLMResponse:
        """`acomplete` for synchronous code."""
        return run_sync(self.acomplete, request)

    async def astream(
        self, request: CompletionRequest | Mapping[str, Any]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Started, then deltas, then Done. Closing the generator early cancels the call at the upstream."""
        run = await self.start(request, stream=True)
        async with aclosing(run.events()) as events:
            async for event in events:
                yield event

    async def acomplete_streaming(
        self, request: CompletionRequest | Mapping[str, Any], callbacks: StreamingCallbacks
    ) -> LLMResponse:
        """Stream into callbacks: on_token for each piece of text, then on_complete or on_error, exactly one.

        The error is raised too, so that a caller without interest in the callback cannot miss it. What a
        callback itself raises ends the call and is raised as it is.
        """
        try:
            response = await self._feed(request, callbacks)
        except LLMServiceError as error:
            await _tell(callbacks.on_error(error))
            raise
        await _tell(callbacks.on_complete(response))
        return response

    def complete_streaming(
        self, request: CompletionRequest | Mapping[str, Any], callbacks: StreamingCallbacks
    ) -> LLMResponse:
        """`acomplete_streaming` for synchronous code; the callbacks run on the event loop's thread."""
        return run_sync(self.acomplete_streaming, request, callbacks)

    async def _feed(
        self, request: CompletionRequest | Mapping[str, Any], callbacks: StreamingCallbacks
    ) -> LLMResponse:
        async with aclosing(self.astream(request)) as events:
            async for event in events:
                if isinstance(event, Delta) and event.content:
                    await _tell(callbacks.on_token(event.content))
                elif isinstance(event, Done):
                    return event.response
        raise AssertionError("a stream ended without Done or an error")

    # --- providers and models

    async def aget_provider(self, slug: str | None = None) -> ProviderInfo:
        """A provider by its slug, or the first by priority."""
        current = await asnapshot()
        mine = await keys.apermitted(current.targets, self._key_id)
        return _info(mine, _facts(current, slug))

    def get_provider(self, slug: str | None = None) -> ProviderInfo:
        """`aget_provider` for synchronous code."""
        current = snapshot()
        return _info(keys.permitted(current.targets, self._key_id), _facts(current, slug))

    async def aget_available_models(self, provider: str | None = None) -> list[AvailableModel]:
        """What staff enabled, merged with what `provider` itself says it offers.

        Without `provider`: the enabled models of all, and no upstream is asked. A provider that cannot be
        asked leaves `offered` None.
        """
        current = await asnapshot()
        mine = await keys.apermitted(current.targets, self._key_id)
        if provider is None:
            return [_available(target, None) for target in mine]
        facts = _facts(current, provider)
        enabled = {t.upstream_model: t for t in mine if t.endpoint.provider == facts.slug}
        offered = await _offered(facts)
        models = [
            _available(target, None if offered is None else name in offered)
            for name, target in enabled.items()
        ]
        others = [info for name, info in (offered or {}).items() if name not in enabled]
        return models + [_not_enabled(info, facts.slug) for info in others]

    def get_available_models(self, provider: str | None = None) -> list[AvailableModel]:
        """`aget_available_models` for synchronous code."""
        return run_sync(self.aget_available_models, provider)

    async def avalidate_provider(self, slug: str | None = None) -> Validation:
        """A real call to the provider with its stored key.

        The admin shows its outcome as the provider's health.
        """
        facts = _facts(await asnapshot(), slug)
        if facts.unusable:
            outcome = Validation(ok=False, message=facts.unusable, latency_ms=0, auth_failed=True)
        else:
            outcome = await driver_for(facts.type).validate(facts.endpoint)
        await sync_to_async(upstreams.record_health)(facts.slug, outcome)
        return outcome

    def validate_provider(self, slug: str | None = None) -> Validation:
        """`avalidate_provider` for synchronous code."""
        return run_sync(self.avalidate_provider, slug)

    def get_rate_limit_status(self, slug: str | None = None) -> RateLimits | None:
        """What the provider's own headers last said, or None where it never said anything."""
        return rate_limits.last(_facts(snapshot(), slug).slug)

    # --- tokens and cost

    def count_tokens(self, text: str, model: str | None = None) -> int:
        """Tokens of a text, by the model's own tokenizer where it is known (tiktoken, offline)."""
        return self.count_text_tokens(text, model).count

    def count_text_tokens(self, text: str, model: str | None = None) -> TokenCount:
        """`count_tokens`, with whether the count is exact for the model."""
        return tokens.count_text(text, _upstream_name(model))

    def count_message_tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        model: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> TokenCount:
        """Tokens of a chat prompt, with every message's overhead.

        `exact` is false where it is an estimate.
        """
        return tokens.count_messages(messages, _upstream_name(model), tools)

    def calculate_cost(self, usage: Usage, model: str) -> Decimal:
        """US dollars for `usage` at the price of `model`. Raises ModelNotFoundError, UnpricedModelError."""
        targets = keys.permitted(snapshot().resolve(model), self._key_id)
        if not targets:
            raise ModelNotFoundError(
                f"The model {model!r} does not exist or you do not have access to it.", param="model"
            )
        if (price := targets[0].price) is None:
            raise UnpricedModelError(
                f"No price is known for {model!r}. Staff can add one in the admin under Model prices.",
                param="model",
            )
        return pricing.usd(pricing.cost(usage, price))

    # --- inside

    @property
    def _key_id(self) -> int | None:
        return self._caller.api_key_id if self._caller is not None else None

    async def _call(self, request: CompletionRequest | Mapping[str, Any], *, stream: bool) -> Call:
        if not isinstance(request, CompletionRequest):
            request = _as_request(request)
        return Call(
            caller=self._caller or await self._python_caller(),
            body=requests.validate(request),
            model=request.model,
            provider=request.provider,
            stream=stream,
            timeout_seconds=requests.timeout_of(request),
            end_user=request.user,
            cache=requests.cache_wish(request.cache, request.cache_ttl_seconds),
        )

    async def _python_caller(self) -> Caller:
        slug = self._project or settings.LLMHUB_DEFAULT_PROJECT
        project = await Project.objects.filter(slug=slug, enabled=True).afirst()
        if project is None:
            raise PermissionDeniedError(
                f"There is no enabled project {slug!r} to pay for this call. Add it in the admin, name "
                "another with LLMService(project=…), or set LLMHUB_DEFAULT_PROJECT.",
                param="project",
            )
        self._caller = Caller(project.pk, project.slug)
        return self._caller


def _as_request(fields: Mapping[str, Any]) -> CompletionRequest:
    allowed = CompletionRequest.__dataclass_fields__
    for name in fields:
        if name not in allowed:
            raise InvalidRequestError(
                f"Unknown field {name!r}. A request has: {', '.join(allowed)}.", param=str(name)
            )
    if "messages" not in fields:
        raise InvalidRequestError("messages is required: a list of {role, content}.", param="messages")
    return CompletionRequest(**fields)


async def _tell(outcome: Awaitable[None] | None) -> None:
    """Await what a callback returned, if it is an async one."""
    if inspect.isawaitable(outcome):
        await outcome


def _facts(current: Snapshot, slug: str | None) -> ProviderFacts:
    facts = next(iter(current.providers.values()), None) if slug is None else current.providers.get(slug)
    if facts is None:
        wanted = "No provider is enabled" if slug is None else f"No enabled provider has the slug {slug!r}"
        raise InvalidRequestError(f"{wanted}. Staff add providers in the admin.", param="provider")
    return facts


def _info(targets: Sequence[Target], facts: ProviderFacts) -> ProviderInfo:
    return ProviderInfo(
        slug=facts.slug,
        name=facts.name,
        type=facts.type,
        base_url=facts.base_url,
        default_model=facts.default_model,
        models=tuple(t.public_model for t in targets if t.endpoint.provider == facts.slug),
        default_config=facts.default_config,
        health=facts.health,
    )


async def _offered(facts: ProviderFacts) -> dict[str, ModelInfo] | None:
    """The provider's own list by name; None where it has none, or cannot be reached."""
    if facts.unusable or not facts.endpoint.quirks.lists_models:
        return None
    try:
        return {info.name: info for info in await driver_for(facts.type).list_models(facts.endpoint)}
    except UpstreamError:
        return None


def _available(target: Target, offered: bool | None) -> AvailableModel:
    return AvailableModel(
        id=target.public_model,
        provider=target.endpoint.provider,
        upstream_model=target.upstream_model,
        context_window=target.context_window,
        max_output=target.max_output,
        capabilities=tuple(sorted(target.capabilities)),
        enabled=True,
        offered=offered,
    )


def _not_enabled(info: ModelInfo, provider: str) -> AvailableModel:
    return AvailableModel(
        id=info.name,
        provider=provider,
        upstream_model=info.name,
        context_window=info.context_window,
        max_output=info.max_output,
        capabilities=(),
        enabled=False,
        offered=True,
    )


def _upstream_name(model: str | None) -> str | None:
    """What the upstream calls a public model.

    Tokenizers go by that name. Unknown names are taken as they are.
    """
    targets = snapshot().resolve(model) if model else ()
    return targets[0].upstream_model if targets else model
