"""Which budgets a call falls under, and the most it can cost."""

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from completions.accounts import BudgetFacts, ProjectFacts
from completions.periods import Period, Span, span_of
from completions.prompts import inputs
from completions.types import Call, Caller
from providers import pricing
from providers.types import Operation, Price, Target

PROMPT_CLASSES = 4  # of a price's rates in pricing's order, those of the prompt
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
        [
            Claim(budget, end_user if budget.per_end_user else "", _span(budget, at))
            for budget in project.budgets
            if budget.api_key_id in (None, caller.api_key_id) and (end_user or not budget.per_end_user)
        ]
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
    prompts = dearest_output = 0
    for target in targets:
        if target.price is not None:
            prompt, output = _dearest(target.price, prompt_tokens)
            prompts += math.ceil(prompt * prompt_tokens)
            dearest_output = max(dearest_output, math.ceil(output * output_bound(target, call)))
    return prompts + dearest_output


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


def _dearest(price: Price, prompt_tokens: int) -> tuple[int | Decimal, int | Decimal]:
    """Nano-dollars per token of the dearest class of the prompt, and of the output."""
    each: Sequence[int | Decimal] = pricing.whole_nanos(price) or pricing.nanos(price, prompt_tokens)
    return max(each[:PROMPT_CLASSES]), max(each[PROMPT_CLASSES:])
