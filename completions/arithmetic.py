"""How the cost of a call came about: its tokens, its own stored unit prices, and the corrections since."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from completions.models import Adjustment, Attempt, Completion
from providers import pricing
from providers.pricing import Line
from providers.types import Price, Usage

WORDS = {
    "prompt": "Prompt",
    "cached": "Prompt, from the provider's cache",
    "cache_write": "Prompt, written to the provider's cache",
    "audio_prompt": "Prompt, audio",
    "completion": "Answer",
    "reasoning": "Answer, hidden reasoning",
    "audio_completion": "Answer, audio",
}
Metered = Completion | Attempt


@dataclass(frozen=True, slots=True)
class Sum:
    """The cost of one upstream call, line by line. `cost_nano` is what the ledger booked for it."""

    title: str  # "provider/model"
    lines: Sequence[Line]
    exact: Decimal  # nano-dollars of the lines, before rounding
    cost_nano: int | None
    price_source: str
    agrees: bool  # the lines come to what was booked


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Sums of the upstream calls make `cost_nano`; with the adjustments, `current_nano`. None: unpriced."""

    sums: Sequence[Sum]
    cost_nano: int | None
    adjustments: Sequence[Adjustment]
    current_nano: int | None


def price_of(row: Metered) -> Price | None:
    """The unit prices a row was billed with; None: none known, or not kept."""
    try:
        return pricing.load(row.prices, row.price_source) if row.prices else None
    except ValueError:
        return None


def current_cost(row: Completion) -> int | None:
    """Nano-dollars with every correction; None: no price known. Queries unless adjustments are prefetched."""
    return corrected(row.cost_nano_usd, row.adjustments.all())


def corrected(cost_nano: int | None, adjustments: Iterable[Adjustment]) -> int | None:
    amounts = [adjustment.amount_nano for adjustment in adjustments]
    return sum(amounts, cost_nano or 0) if amounts or cost_nano is not None else None


def billed(row: Completion, attempts: Sequence[Attempt]) -> Sequence[Metered]:
    """The rows whose tokens make up the cost: the attempts, or the call itself where it has none."""
    return attempts or (row,)


def arithmetic(row: Completion) -> Arithmetic:
    """The whole calculation of one call, as people check it."""
    attempts = list(row.attempt_rows.all())
    sums = [_sum(part, usage) for part in billed(row, attempts) if (usage := part.usage) is not None]
    adjustments = sorted(row.adjustments.all(), key=lambda adjustment: adjustment.pk)
    return Arithmetic(sums, row.cost_nano_usd, adjustments, corrected(row.cost_nano_usd, adjustments))


def _sum(row: Metered, usage: Usage) -> Sum:
    price = price_of(row)
    sound = price is not None and not pricing.fault(usage)
    lines = pricing.lines(usage, price) if price is not None and sound else []
    exact = sum((line.nano for line in lines), start=Decimal(0))
    agrees = sound and row.cost_nano_usd == pricing.total(lines)
    title = f"{row.provider_slug}/{row.model}"
    return Sum(title, lines, exact, row.cost_nano_usd, row.price_source, agrees)
