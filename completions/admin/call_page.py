"""What a call's page shows below its fields: attempts, the arithmetic of its cost, prompt and answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.http import HttpRequest

from completions import arithmetic
from completions.admin.amounts import exact_dollars, milliseconds, signed_dollars, state_badge, to_the_second
from completions.models import Attempt, Completion, CompletionContent
from providers.admin.language_models import dollars

SHOWN_CHARACTERS = 50_000  # of one text; the API gives it whole


@dataclass(frozen=True, slots=True)
class Message:
    """One message as people read it: who says it, what, and which functions it calls."""

    role: str
    text: str
    calls: tuple[tuple[str, str], ...] = ()


def below(request: HttpRequest, call: Completion) -> dict[str, Any]:
    """The context of `admin/completions/completion/below.html`."""
    context: dict[str, Any] = {
        "attempt_lines": [_attempt(attempt) for attempt in call.attempt_rows.all()],
        "sums": _sums(call),
    }
    if request.user.has_perm("completions.view_completioncontent"):
        context["may_read"] = True
        context["content"] = _content(call)
    return context


def _attempt(attempt: Attempt) -> dict[str, Any]:
    tokens = "-"
    if attempt.prompt_tokens is not None:
        tokens = f"{attempt.prompt_tokens:,} → {attempt.completion_tokens or 0:,}"
    problem = ": ".join(part for part in (attempt.error_code, attempt.error_message) if part)
    return {
        "row": attempt,
        "state": state_badge(attempt),
        "problem": f"{problem} (HTTP {attempt.status})" if problem and attempt.status else problem,
        "started": milliseconds(attempt.started_ms),
        "latency": milliseconds(attempt.latency_ms),
        "tokens": tokens,
        "cost": "Unpriced" if attempt.cost_nano_usd is None else exact_dollars(attempt.cost_nano_usd),
    }


def _sums(call: Completion) -> dict[str, Any]:
    found = arithmetic.arithmetic(call)
    return {
        "parts": [_part(part) for part in found.sums],
        "cost": _known(found.cost_nano),
        "adjustments": [
            {
                "row": adjustment,
                "amount": signed_dollars(adjustment.amount_nano),
                "when": to_the_second(adjustment.created_at),
            }
            for adjustment in found.adjustments
        ],
        "current": _known(found.current_nano),
    }


def _part(part: arithmetic.Sum) -> dict[str, Any]:
    note = ""
    if not part.lines:
        note = "No price was known." if part.cost_nano is None else "Its unit prices were not kept."
    elif not part.agrees:
        note = f"These lines come to another amount than the {_known(part.cost_nano)} that was booked."
    return {
        "title": part.title,
        "source": part.price_source,
        "lines": [
            {
                "name": arithmetic.WORDS[line.name],
                "tokens": f"{line.tokens:,}",
                "rate": dollars(line.rate),
                "amount": dollars(line.nano.scaleb(-9)),
            }
            for line in part.lines
        ],
        "exact": dollars(part.exact.scaleb(-9)),
        "rounded": part.exact != Decimal(part.cost_nano or 0),
        "cost": _known(part.cost_nano),
        "note": note,
    }


def _known(nano: int | None) -> str:
    return "Unpriced" if nano is None else exact_dollars(nano)


def _content(call: Completion) -> dict[str, Any] | None:
    row = CompletionContent.objects.filter(pk=call.pk).first()
    if row is None:
        return None
    request, response = _parsed(row.request), _parsed(row.response)
    asked = request.get("messages") if isinstance(request, Mapping) else None
    return {
        "expires": to_the_second(row.expires_at),
        "asked": [_message(one) for one in asked] if isinstance(asked, list) else [],
        "answer": _message(response) if isinstance(response, Mapping) and response else None,
        "request": _pretty(request),
        "response": _pretty(response),
    }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pretty(value: Any) -> str:
    return _cut(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _cut(text: str) -> str:
    rest = len(text) - SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:SHOWN_CHARACTERS]}\n… {rest:,} more characters"


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping):
        return Message("?", _pretty(message))
    calls = message.get("tool_calls")
    thought = message.get("reasoning_content")
    text = _text(message.get("content"))
    if isinstance(thought, str) and thought:
        text = f"[reasoning]\n{thought}\n[answer]\n{text}"
    return Message(
        role=" ".join(str(message[name]) for name in ("role", "name", "tool_call_id") if message.get(name)),
        text=_cut(text),
        calls=tuple(_call(one) for one in calls) if isinstance(calls, list) else (),
    )


def _text(content: Any) -> str:
    """Text parts as they are; of any other part only its kind: an image is never loaded or drawn."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content if isinstance(content, str) else _pretty(content)
    return "\n".join(_piece(part) for part in content)


def _piece(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else None
    return f"[{kind or 'part'}, {len(json.dumps(part)):,} characters of JSON]"


def _call(call: Any) -> tuple[str, str]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return "?", _pretty(call)
    return str(function.get("name") or "?"), _cut(str(function.get("arguments") or ""))
