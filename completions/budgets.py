"""Which budgets a call falls under, and the most it can cost."""

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from completions.accounts import BudgetFacts, ProjectFacts
from completions.periods import Period, Span, span_of
from completions.prompts import inputs, read_beside
from completions.tokens import AFTER_TOOLS
from completions.types import Call, Caller
from providers import pricing, wire_json
from providers.types import Operation, Price, Target

PROMPT_CLASSES = 4  # of a price's rates in pricing's order, those of the prompt
UNKNOWN_OUTPUT = 32_768  # tokens held where neither the call nor the model bounds its output
UNKNOWN_WINDOW = 128_000  # tokens held for a file that is only named, where the model's window is not known


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


def worst_case(targets: Sequence[Target], prompt_tokens: int, call: Call, *, open_ended: bool = False) -> int:
    """Nano-dollars that a call can cost at most: every candidate's prompt and the dearest one's output.

    An open-ended prompt may fill the model's window. Targets without a price count nothing: who holds a hard
    budget has removed them.
    """
    prompts = dearest_output = 0
    for target in targets:
        if target.price is not None:
            tokens = prompt_tokens + _defaults(target, call)
            if open_ended:
                tokens = max(tokens, target.context_window or UNKNOWN_WINDOW)
            prompt, output = _dearest(target.price, tokens)
            prompts += math.ceil(prompt * tokens)
            dearest_output = max(dearest_output, math.ceil(output * output_bound(target, call)))
    return prompts + dearest_output


def output_bound(target: Target, call: Call) -> int:
    """Tokens of output at most: what the call asks for, else the model's maximum."""
    if call.operation is Operation.EMBEDDING:
        return 0
    asked = wire_json.output_bound(call.body, target.default_config)
    least = 0 if call.operation is Operation.COMPLETION else 1  # there, 0 asks for the prompt's own figures
    bound = (
        asked
        if isinstance(asked, int) and asked >= least
        else target.max_output or target.context_window or UNKNOWN_OUTPUT
    )
    return (bound + _predicted(target, call)) * _answers(target, call)


def _answers(target: Target, call: Call) -> int:
    """How many answers a call asks for: to each of its prompts, on the older wire."""
    answers = max(_positive(_asked(target, call, "n")), _positive(_asked(target, call, "best_of")))
    return (
        answers * len(inputs(call.body.get("prompt"))) if call.operation is Operation.COMPLETION else answers
    )


def _predicted(target: Target, call: Call) -> int:
    """Tokens of a prediction at most: those that were not right are billed as output, beside the bound."""
    prediction = _asked(target, call, "prediction")
    return len(wire_json.dumped(prediction)) if prediction else 0


def _defaults(target: Target, call: Call) -> int:
    """Tokens at most of what the provider's defaults add to be read: tools, a schema of the answer."""
    if not target.default_config or call.operation is Operation.EMBEDDING:
        return 0
    beside = read_beside(call.operation, target.default_config)
    added = {name: value for name, value in beside.items() if name not in call.body}
    return len(wire_json.dumped(added)) + AFTER_TOOLS if added else 0


def _asked(target: Target, call: Call, name: str) -> Any:
    """A field as the upstream gets it: the provider's default, unless the call says otherwise."""
    return call.body[name] if name in call.body else target.default_config.get(name)


def _positive(value: Any) -> int:
    return value if isinstance(value, int) and value > 1 else 1


def _dearest(price: Price, prompt_tokens: int) -> tuple[int | Decimal, int | Decimal]:
    """Nano-dollars per token of the dearest class of the prompt, and of the output."""
    each: Sequence[int | Decimal] = pricing.whole_nanos(price) or pricing.nanos(price, prompt_tokens)
    return max(each[:PROMPT_CLASSES]), max(each[PROMPT_CLASSES:])
