"""What a call's page shows below its fields: attempts, the arithmetic of its cost, prompt and answer."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.http import HttpRequest

from completions import arithmetic
from completions.admin.amounts import exact_dollars, milliseconds, signed_dollars, state_badge, to_the_second
from completions.admin.conversation import asked_of, message_of, parsed, pretty
from completions.models import SPARED, Attempt, Completion, CompletionContent
from providers.admin.language_models import dollars


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
        "parts": [_part(part, spared=call.cache in SPARED) for part in found.sums],
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


def _part(part: arithmetic.Sum, *, spared: bool) -> dict[str, Any]:
    note = ""
    if not part.lines and spared:
        note = "Answered without an upstream call of its own: it cost nothing."
    elif not part.lines:
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
    request, response = parsed(row.request), parsed(row.response)
    return {
        "expires": to_the_second(row.expires_at),
        "asked": asked_of(request),
        "answer": message_of(response) if isinstance(response, Mapping) and response else None,
        "request": pretty(request),
        "response": pretty(response),
    }
