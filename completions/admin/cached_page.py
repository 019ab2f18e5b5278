"""What the page of a cached answer shows below its fields: question and answer, and who was given it."""

from typing import Any

import orjson
from django.http import HttpRequest

from completions.admin.amounts import exact_dollars, milliseconds, state_badge, sum_tile, to_the_second
from completions.admin.caching import cache_badge
from completions.admin.conversation import answers_of, asked_of, parsed, pretty
from completions.models import CachedResponse, Completion

CALLS_SHOWN = 50


def below(request: HttpRequest, row: CachedResponse) -> dict[str, Any]:
    """The context of `admin/completions/cachedresponse/below.html`."""
    context: dict[str, Any] = {
        "tiles": _tiles(row),
        "embedding": row.operation == "embedding",
    }
    if request.user.has_perm("completions.view_completioncontent"):
        context["may_read"] = True
        context["content"] = _content(row)
    if request.user.has_perm("completions.view_completion"):
        context["may_see_calls"] = True
        context["given"] = [_call(call) for call in _given(row)]
        context["calls_shown"] = CALLS_SHOWN
    return context


def _tiles(row: CachedResponse) -> list[dict[str, str]]:
    cost = "Unpriced" if row.cost_nano_usd is None else exact_dollars(row.cost_nano_usd)
    return [
        {"name": "Hits", "value": f"{row.hits:,}"},
        sum_tile("Saved", row.saved_nano_usd),
        {"name": "Cost of the answer", "value": cost},
        {"name": "Last hit", "value": to_the_second(row.last_hit_at)},
    ]


def _content(row: CachedResponse) -> dict[str, Any] | None:
    if not row.response:
        return None
    request, response = parsed(row.request), parsed(row.response)
    return {
        "asked": asked_of(request),
        "answers": answers_of(response),
        "parameters": _parameters(request),
        "request": pretty(request),
        "response": pretty(response),
        "facts": pretty(parsed(row.facts)),
    }


def _parameters(request: Any) -> list[tuple[str, str]]:
    """What the key is made of beside what was said."""
    if not isinstance(request, dict):
        return []
    said = ("messages", "prompt", "input")
    return [
        (name, value if isinstance(value, str) else orjson.dumps(value).decode())
        for name, value in request.items()
        if name not in said
    ]


def _given(row: CachedResponse) -> list[Completion]:
    """The newest calls that were given this answer."""
    if row.completion_id is None:
        return []
    calls = Completion.objects.filter(cached_from=row.completion_id).select_related("project", "api_key")
    return list(calls.order_by("-pk")[:CALLS_SHOWN])


def _call(call: Completion) -> dict[str, Any]:
    return {
        "row": call,
        "when": to_the_second(call.created_at),
        "cache": cache_badge(call),
        "state": state_badge(call),
        "key": call.api_key.name if call.api_key else "-",
        "latency": milliseconds(call.latency_ms),
    }
