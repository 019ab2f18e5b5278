"""Which budgets a call falls under, and the most it can cost."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from completions.accounts import BudgetFacts, ProjectFacts
from completions.periods import Period, Span, span_of
from completions.prompts import inputs
from completions.types import Call, Caller
from providers import pricing
from providers.types import Operation, Price, Rate, Target

UNKNOWN_OUTPUT = 32_768  # tokens held where neither the call nor the model bounds its output


class Claim(NamedTuple):
    """A budget that a call falls under: whose share of it, and the period the call falls into."""

    budget: BudgetFacts
    subject: str  # the end user of a budget per end user, else ""
    span: Span


_spans: dict[tuple[Period, str], Span] = {}


def claims(project: ProjectFacts, caller: Caller, end_user: str, at: datetime) -> tuple[Claim, ...]:
    """The budgets that pay for a call. One per end user pays only for calls that name their user."""
    return tuple(
        Claim(budget, end_user if budget.per_end_user else "", _span(budget, at))
        for budget in project.budgets
        if budget.api_key_id in (None, caller.api_key_id) and (end_user or not budget.per_end_user)
    )


def _span(budget: BudgetFacts, at: datetime) -> Span:
    """The period of `at`; never an earlier one than before, when the clock steps back."""
    name = (budget.period, budget.zone.key)
    span = _spans.get(name)
    if span is None or (span.end is not None and at >= span.end):
        span = _spans[name] = span_of(budget.period, at, budget.zone)
    return span


def worst_case(targets: Sequence[Target], prompt_tokens: int, call: Call) -> int:
    """Nano-dollars that a call can cost at most: every candidate's prompt and the dearest one's output.

    Targets without a price count nothing: who holds a hard budget has removed them.
    """
    prompts, outputs = Decimal(0), [Decimal(0)]
    for target in targets:
        if target.price is not None:
            prompts += _dearest_prompt(target.price, prompt_tokens) * prompt_tokens
            outputs.append(_dearest_output(target.price, prompt_tokens) * output_bound(target, call))
    return pricing.nano((prompts + max(outputs)) / pricing.MILLION)


def output_bound(target: Target, call: Call) -> int:
    """Tokens of output at most: what the call asks for, else the model's maximum."""
    if call.operation is Operation.EMBEDDING:
        return 0
    body, defaults = call.body, target.default_config
    asked = (
        body.get("max_completion_tokens")
        or body.get("max_tokens")
        or defaults.get("max_completion_tokens")
        or defaults.get("max_tokens")
    )
    bound = asked if isinstance(asked, int) else target.max_output or target.context_window or UNKNOWN_OUTPUT
    return bound * _answers(call)


def _answers(call: Call) -> int:
    """How many answers a call asks for: to each of its prompts, on the older wire."""
    answers = max(_positive(call.body.get("n")), _positive(call.body.get("best_of")))
    return (
        answers * len(inputs(call.body.get("prompt"))) if call.operation is Operation.COMPLETION else answers
    )


def _positive(value: Any) -> int:
    return value if isinstance(value, int) and value > 1 else 1


def _dearest_prompt(price: Price, prompt_tokens: int) -> Decimal:
    return _dearest((price.prompt, price.cached, price.cache_write, price.audio_prompt), prompt_tokens)


def _dearest_output(price: Price, prompt_tokens: int) -> Decimal:
    return _dearest((price.completion, price.reasoning, price.audio_completion), prompt_tokens)


def _dearest(rates: Sequence[Rate | None], prompt_tokens: int) -> Decimal:
    return max(rate.at(prompt_tokens) for rate in rates if rate is not None)
