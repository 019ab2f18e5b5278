"""The one place where a cost is derived: integers and Decimal only, rounded half-even once, at the end.

Every token is priced exactly once: a part (cached, written to the cache, audio, reasoning) at its own rate,
the rest of its whole at the whole's. A part without a rate is priced as its whole.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from operator import mul
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from providers.types import NANO, Price, Rate, Tier, Usage

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, ModelPrice, Provider

NANO_PER_MILLIONTH = 1000  # a dollar per million tokens is this many nano-dollars per token
MILLION = 1_000_000  # tokens that a rate is for
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)

# genai-prices' keys of the classes that Usage knows.
RATES = {
    "input_mtok": "prompt",
    "output_mtok": "completion",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_prompt",
    "output_audio_mtok": "audio_completion",
}
# Charged only when a call asks for it (a search tool, an hour of caching, cached audio); Usage does not tell,
# so it is not part of the cost. Any other key: the price depends on what Usage cannot show, so it is none.
LEFT_OUT = {
    "web_searches_kcount",
    "storage_searches_kcount",
    "social_searches_kcount",
    "code_executions_kcount",
    "cache_write_1h_mtok",
    "cache_audio_read_mtok",
    "cache_audio_write_mtok",
}
VERSION = r"(?:latest|preview|exp|\d{4}-\d\d-\d\d|\d\d-\d\d(?:\d\d)?|\d{3,4}|\d{6}|\d{8})"
VERSIONS = re.compile(rf"(?:[-@]{VERSION})*\Z")
REST_OF_DATE = re.compile(rf"{VERSION}(?:[-@]{VERSION})*\Z")


def cost(usage: Usage, price: Price) -> int:
    """Nano-dollars. Raises ValueError where the usage is impossible (`fault` says so beforehand)."""
    each = whole_nanos(price)
    if each is None:
        return total(lines(usage, price))
    prompt, completion, cached, cache_write, reasoning, audio_prompt, audio_completion, *_ = usage
    text = prompt - cached - cache_write - audio_prompt
    answer = completion - reasoning - audio_completion
    counts = (text, cached, cache_write, audio_prompt, answer, reasoning, audio_completion)
    if min(counts) < 0:
        raise ValueError(fault(usage))
    return sum(map(mul, counts, each))


def whole_nanos(price: Price) -> tuple[int, ...] | None:
    """Nano-dollars per token of each class, in the order of `_shares`; None where they are no whole numbers,
    or differ by the length of the prompt.

    Most prices are whole: then a cost is a sum of integers, and exact.
    """
    try:
        return cast("tuple[int, ...] | None", price.prepared["whole_nanos"])
    except KeyError:
        rates = [own or whole for _, _, own, whole in _shares(Usage(), price)]
        exact = [rate.base * NANO_PER_MILLIONTH for rate in rates]
        whole = all(each == each.to_integral_value() for each in exact) and not any(
            rate.tiers for rate in rates
        )
        price.prepared["whole_nanos"] = tuple(int(each) for each in exact) if whole else None
        return whole_nanos(price)


def fault(usage: Usage) -> str:
    """Why a usage is impossible: a negative count, or parts larger than their whole. Empty: it is sound."""
    prompt_parts = {
        "cached": usage.cached,
        "cache_write": usage.cache_write,
        "audio_prompt": usage.audio_prompt,
    }
    completion_parts = {"reasoning": usage.reasoning, "audio_completion": usage.audio_completion}
    for name, whole, parts in (
        ("prompt", usage.prompt, prompt_parts),
        ("completion", usage.completion, completion_parts),
    ):
        for count_name, count in {name: whole, **parts}.items():
            if count < 0:
                return f"{count_name} is {count} tokens; a count cannot be negative"
        if sum(parts.values()) > whole:
            return f"{' + '.join(parts)} are {sum(parts.values())} tokens, more than the {whole} of {name}"
    return ""


def nano(dollars: Decimal) -> int:
    """Dollars as whole nano-dollars, rounded half-even."""
    with localcontext(EXACT):
        return int((dollars * NANO).to_integral_value())


def usd(nano: int) -> Decimal:
    """Nano-dollars as dollars, exactly."""
    return Decimal(nano).scaleb(-9, EXACT)


def nanos(price: Price, prompt_tokens: int) -> tuple[Decimal, ...]:
    """Nano-dollars per token of each class, in the order of `_shares`, for a prompt of that length."""
    rates = [own or whole for _, _, own, whole in _shares(Usage(), price)]
    return tuple(rate.at(prompt_tokens) * NANO_PER_MILLIONTH for rate in rates)


def usd_text(nano: int) -> str:
    """Nano-dollars as dollars in decimal text, exactly and without an exponent, e.g. "0.0001375"."""
    whole, rest = divmod(abs(nano), NANO)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if nano < 0 else text


class Line(NamedTuple):
    """One class of a call's tokens: `rate` is USD per million, `nano` the exact amount before rounding."""

    name: str
    tokens: int
    rate: Decimal
    nano: Decimal


def lines(usage: Usage, price: Price) -> list[Line]:
    """The arithmetic of `cost`, for people: its classes that have tokens; `total` of them is the cost.

    Raises ValueError where the usage is impossible.
    """
    if problem := fault(usage):
        raise ValueError(problem)
    found = []
    with localcontext(EXACT):
        for name, tokens, own, whole in _shares(usage, price):
            if tokens:
                rate = (own or whole).at(usage.prompt)
                found.append(Line(name, tokens, rate, tokens * rate * NANO_PER_MILLIONTH))
    return found


def total(found: Sequence[Line]) -> int:
    """Nano-dollars of all lines, rounded half-even once."""
    with localcontext(EXACT):
        return int(sum((line.nano for line in found), start=Decimal(0)).to_integral_value())


def dump(price: Price) -> str:
    """The unit prices as compact JSON, exact; without the source, which a ledger row has beside them."""
    try:
        return cast("str", price.prepared["dump"])
    except KeyError:
        rates = {name: getattr(price, name) for name in RATES.values()}
        shapes = {name: _shape(rate) for name, rate in rates.items() if rate is not None}
        text = price.prepared["dump"] = json.dumps(shapes, separators=(",", ":"))
        return text


def load(text: str, source: str = "") -> Price:
    """The unit prices that `dump` wrote. Raises ValueError for any other text."""
    try:
        rates = {name: _rate_of(shape) for name, shape in json.loads(text).items()}
        return Price(**rates, source=source)
    except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not unit prices as pricing.dump writes them: {text[:200]}") from error


def _shape(rate: Rate) -> Any:
    if not rate.tiers:
        return str(rate.base)
    return {"base": str(rate.base), "tiers": [[tier.above, str(tier.price)] for tier in rate.tiers]}


def _rate_of(shape: Any) -> Rate:
    if isinstance(shape, str):
        return Rate(Decimal(shape))
    tiers = tuple(Tier(int(above), Decimal(price)) for above, price in shape["tiers"])
    return Rate(Decimal(shape["base"]), tiers)


def _shares(usage: Usage, price: Price) -> Sequence[tuple[str, int, Rate | None, Rate]]:
    """Each class once: its name and tokens, its own rate, and the rate of its whole."""
    text = usage.prompt - usage.cached - usage.cache_write - usage.audio_prompt
    answer = usage.completion - usage.reasoning - usage.audio_completion
    return (
        ("prompt", text, None, price.prompt),
        ("cached", usage.cached, price.cached, price.prompt),
        ("cache_write", usage.cache_write, price.cache_write, price.prompt),
        ("audio_prompt", usage.audio_prompt, price.audio_prompt, price.prompt),
        ("completion", answer, None, price.completion),
        ("reasoning", usage.reasoning, price.reasoning, price.completion),
        ("audio_completion", usage.audio_completion, price.audio_completion, price.completion),
    )


def bundled_price(price_source: str | None, upstream_model: str, day: date) -> Price | None:
    """The list price of a model on a UTC day, from genai-prices' bundled data; None where it has no sure one.

    None too where a vendor charges by what a token count does not show: request, page, minute, image token,
    hour of the day. `price_source` is a provider id of genai-prices. The first call imports it: 0.5 s, 50 MB.
    """
    return _listed(price_source, upstream_model.lower(), day) if price_source else None


@lru_cache(maxsize=8192)
def _listed(price_source: str, model_ref: str, day: date) -> Price | None:
    from genai_prices import __version__
    from genai_prices.data_snapshot import get_snapshot

    providers = {provider.id: provider for provider in get_snapshot().providers}
    if (provider := providers.get(price_source)) is None:
        return None
    if price_source == "google":
        model_ref = model_ref.removeprefix("models/")  # Gemini's own list of models names them so
    for seller in (provider, *(providers[name] for name in provider.fallback_model_providers or ())):
        if model := _find(seller, model_ref):
            listed = _on(model, day)
            return _price(listed, f"genai-prices {__version__}: {seller.id}/{model.id}") if listed else None
    return None


def _find(provider: "Provider", model_ref: str) -> "ModelInfo | None":
    """The model that is surely meant: by one of its names, else by a name and a version behind it.

    genai-prices matches by prefix and substring: it prices 'gemini-3.6-flash-lite' as 'gemini-3.6-flash'.
    """
    candidates = [model for model in provider.models if model.is_match(model_ref)]
    for model in candidates:
        if model.id.lower() == model_ref or any(
            _names(clause, model_ref) for clause in _clauses(model.match)
        ):
            return model
    return next(
        (m for m in candidates if any(_names_version(clause, model_ref) for clause in _clauses(m.match))),
        None,
    )


def _clauses(match: "MatchLogic") -> Iterator["MatchLogic"]:
    """The leaves of a clause."""
    for clause in getattr(match, "or_", None) or getattr(match, "and_", None) or ():
        yield from _clauses(clause)
    yield match


def _names(clause: "MatchLogic", model_ref: str) -> bool:
    if name := getattr(clause, "equals", None):
        return bool(name.lower() == model_ref)
    pattern = getattr(clause, "regex", None) or ""
    return pattern.startswith("^") and pattern.endswith("$") and clause.is_match(model_ref)


def _names_version(clause: "MatchLogic", model_ref: str) -> bool:
    """Whether nothing but versions follow the clause's text; behind a fine-tune's, its own name may."""
    text = getattr(clause, "starts_with", None) or getattr(clause, "contains", None)
    if not text or not model_ref.startswith(text := text.lower()):
        return False
    rest = model_ref[len(text) :]
    if text.startswith("ft:"):
        rest = rest.partition(":")[0]
    unfinished = text.endswith("-") or re.search(r"-20\d\d\Z", text)
    return bool((REST_OF_DATE if unfinished else VERSIONS).match(rest))


def _on(model: "ModelInfo", day: date) -> "ModelPrice | None":
    """The prices of a day; None where they change by the hour. Later entries win, as genai-prices has it."""
    if not isinstance(model.prices, list):
        return model.prices
    for entry in reversed(model.prices):
        constraint = entry.constraint
        if constraint is None:
            return entry.prices
        start: date | None = getattr(constraint, "start_date", None)
        if start is None:
            return None
        if start <= day:
            return entry.prices
    return None


def _price(listed: "ModelPrice", source: str) -> Price | None:
    rates: dict[str, Rate] = {}
    for key, value in vars(listed).items():
        if value is None or key in LEFT_OUT:
            continue
        if key not in RATES:
            return None
        tiers = tuple(Tier(tier.start, tier.price) for tier in getattr(value, "tiers", ()))
        rates[RATES[key]] = Rate(getattr(value, "base", value), tiers)
    if "prompt" not in rates or "completion" not in rates:
        return None
    return Price(**rates, source=source)
