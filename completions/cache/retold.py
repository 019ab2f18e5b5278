"""Past calls as the cache saw them: by their rows and contents, under the configuration of now."""

from datetime import timedelta
from typing import Any, NamedTuple

import orjson

from completions import accounts
from completions.cache.compare import Past, Request, Story, likeness
from completions.cache.fingerprint import key_of, spelled
from completions.cache.policy import is_deterministic, is_not_rebuilt, mode_of, scope_of, ttl_seconds
from completions.models import Completion, CompletionContent, State
from completions.prompts import inputs
from providers.registry import snapshot
from providers.types import JSON, CacheMode, Operation, Target

BESIDE = ("model", "stream")  # they stand in a body as it came, and not in what the key is made of
LOOKED_AT = 2000  # earlier calls of the project
COMPARED = 40  # of them, those of the model, with content


class Retold(NamedTuple):
    """A call's request. `target`: what would answer it now; None where that is gone, and `key` too."""

    call: Completion
    request: Request
    target: Target | None
    key: str | None


def retold(call: Completion, content: CompletionContent | None = None) -> Retold:
    """`content`: if it was read already."""
    operation = Operation(call.operation)
    provider, model = _first_asked(call)
    target = _target(provider, model)
    body = _body(call, content)
    asked = None
    if body is not None:
        asked = spelled(target.default_config if target is not None else {}, operation, body)
    scope = _scope(call)
    request = Request(scope, operation, provider, model, asked)
    key = key_of(scope, target, operation, asked) if target is not None and asked is not None else None
    return Retold(call, request, target, key)


def keys_of(call: Completion, content: CompletionContent) -> list[str]:
    """Of the cached answers that the call brought or was given, as today's configuration names them."""
    told = retold(call, content)
    asked = told.request.asked
    if told.target is None or told.key is None or asked is None:
        return []
    if told.request.operation is not Operation.EMBEDDING:
        return [told.key]
    scope, target = told.request.scope, told.target
    each = inputs(asked.get("input"))
    return [key_of(scope, target, Operation.EMBEDDING, {**asked, "input": one}) for one in each]


def story_of(earlier: Retold, later: Retold) -> Story:
    """What `compare.reasons` goes by, of two calls with one key."""
    asked = later.request.asked or {}
    target, call = later.target, later.call
    ttl = 0
    mode = CacheMode.DEFAULT
    if target is not None:
        key = accounts.key(call.api_key_id) if call.api_key_id is not None else None
        mode = mode_of(target, key)
        ttl = ttl_seconds(target) + target.cache.stale_seconds
    return Story(
        earlier=_past(earlier.call),
        later=_past(call),
        operation=later.request.operation,
        deterministic=is_deterministic(later.request.operation, asked, {}),
        mode=mode,
        ttl=timedelta(seconds=ttl),
        rebuilt=not is_not_rebuilt(later.request.operation, asked),
    )


def likest_earlier(call: Completion) -> Completion | None:
    """The newest earlier call of the same project and model whose request is most alike.

    Where no content can be compared, the newest.
    """
    newest = Completion.objects.filter(project_id=call.project_id, pk__lt=call.pk).order_by("-pk")
    looked_at = newest.values_list("pk", flat=True)[:LOOKED_AT]
    same = Completion.objects.filter(
        pk__in=list(looked_at), requested_model=call.requested_model, operation=call.operation
    ).order_by("-pk")
    mine = retold(call).request.asked
    found = list(same.filter(content__isnull=False).select_related("content")[:COMPARED])
    if mine is None or not found:
        return same.first()
    return max(found, key=lambda one: (likeness(mine, retold(one, one.content).request.asked or {}), one.pk))


def _past(call: Completion) -> Past:
    ended = call.finished_at
    if ended is None and call.latency_ms is not None:
        ended = call.created_at + timedelta(milliseconds=call.latency_ms)
    return Past(
        cache=call.cache,
        state=State(call.state),
        finish_reason=call.finish_reason,
        anomaly=call.usage_anomaly,
        stream=call.stream,
        created_at=call.created_at,
        ended_at=ended,
    )


def _scope(call: Completion) -> str:
    project = accounts.project(call.project_id)
    key = accounts.key(call.api_key_id) if call.api_key_id is not None else None
    return "" if project is None else scope_of(project, key, call.user_id)


def _first_asked(call: Completion) -> tuple[str, str]:
    """Provider and model that the call was meant for first: its key is theirs, whoever answered."""
    if call.attempts > 1 and (first := call.attempt_rows.first()) is not None:
        return first.provider_slug, first.model
    return call.provider_slug, call.model


def _target(provider: str, model: str) -> Target | None:
    return next(
        (
            target
            for target in snapshot().targets
            if target.endpoint.provider == provider and target.upstream_model == model
        ),
        None,
    )


def _body(call: Completion, content: CompletionContent | None) -> JSON | None:
    kept = content or CompletionContent.objects.filter(pk=call.pk).first()
    try:
        body: Any = orjson.loads(kept.request) if kept is not None else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    return {name: value for name, value in body.items() if name not in BESIDE}
