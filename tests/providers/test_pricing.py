"""Costs are exact to the nano-dollar; a price is a model's own or none."""

import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as ListedUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st

from providers.pricing import bundled_price, cost, fault, usd
from providers.types import Price, Rate, Tier, Usage

DAY = date(2026, 11, 23)
ROOT = Path(__file__).resolve().parents[2]


def rate(*steps: str | int) -> Rate:
    """`rate("3", 200_000, "6")`: 3 USD per million, 6 for calls of more than 200,000 prompt tokens."""
    base, *rest = steps
    tiers = (Tier(int(above), Decimal(dear)) for above, dear in zip(rest[::2], rest[1::2], strict=True))
    return Rate(Decimal(base), tuple(tiers))


def price(**rates: str | Rate) -> Price:
    values: dict[str, Any] = {
        name: rate(value) if isinstance(value, str) else value for name, value in rates.items()
    }
    return Price(**values)


GPT_4O = price(prompt="2.50", cached="1.25", completion="10")
GPT_4O_MINI = price(prompt="0.15", cached="0.075", completion="0.60")
O3 = price(prompt="2", cached="0.50", completion="8")
GPT_AUDIO = price(prompt="2.50", completion="10", audio_prompt="32", audio_completion="64")
GPT_61_SOL = price(
    prompt=rate("2", 272_000, "4"), cached=rate("0.1", 272_000, "0.2"), completion=rate("10", 272_000, "15")
)
SONNET_45 = price(
    prompt=rate("3", 200_000, "6"),
    cached=rate("0.30", 200_000, "0.60"),
    cache_write=rate("3.75", 200_000, "7.50"),
    completion=rate("15", 200_000, "22.50"),
)
HAIKU_45 = price(prompt="1", cached="0.10", cache_write="1.25", completion="5")
OPUS_55 = price(prompt="4", cached="0.20", cache_write="5", completion="20")
GEMINI_25_PRO = price(
    prompt=rate("1.25", 200_000, "2.50"),
    cached=rate("0.125", 200_000, "0.25"),
    completion=rate("10", 200_000, "15"),
)
GEMINI_25_FLASH = price(prompt="0.30", cached="0.03", audio_prompt="1", completion="2.50")
CODESTRAL = price(prompt="0.30", completion="0.90")
MISTRAL_SMALL = price(prompt="0.10", completion="0.30")
LLAMA_70B = price(prompt="0.59", completion="0.79")
LLAMA_8B = price(prompt="0.05", completion="0.08")
DEEPSEEK_V32 = price(prompt="0.2288", completion="0.3432")
DEEPSEEK_FLASH = price(prompt="0.14", cached="0.0028", completion="0.28")
GROK_4 = price(prompt="3", cached="0.75", completion="15")
GROK_47 = price(
    prompt=rate("2", 199_999, "4"), cached=rate("0.50", 199_999, "1"), completion=rate("6", 199_999, "12")
)
KIMI_K3 = price(prompt="3", cached="0.30", completion="15")
GPT_OSS = price(prompt="0.15", cached="0.015", completion="0.60")
GLM_47 = price(prompt="2.25", completion="2.75")
COMMAND_A = price(prompt="2.50", completion="10")
COMMAND_R7B = price(prompt="0.0375", completion="0.15")
SONAR_RESEARCH = price(prompt="2", completion="8", reasoning="3")
HALF_A_NANO = price(prompt="0.0005", completion="0.0005")

# Nano-dollars are worked out by hand: tokens x USD per million x 1000.
CASES = {
    "openai: prompt and completion are priced apart": (GPT_4O, Usage(1000, 500), 7_500_000),
    "openai: cached tokens are not prompt tokens too": (GPT_4O, Usage(1000, 500, cached=400), 7_000_000),
    "openai: a whole prompt from the cache": (GPT_4O, Usage(1000, 0, cached=1000), 1_250_000),
    "openai: one token of prompt": (GPT_4O, Usage(1, 0), 2_500),
    "openai: one token of output": (GPT_4O, Usage(0, 1), 10_000),
    "openai: mini, one token each": (GPT_4O_MINI, Usage(1, 1), 750),
    "openai: mini, mostly cached": (GPT_4O_MINI, Usage(12_345, 678, cached=10_000), 1_508_550),
    "openai: reasoning without a rate is output": (O3, Usage(100, 1000, reasoning=900), 8_200_000),
    "openai: audio in and out": (
        GPT_AUDIO,
        Usage(1000, 500, audio_prompt=800, audio_completion=450),
        55_400_000,
    ),
    "openai: audio rates without audio": (GPT_AUDIO, Usage(1000, 500), 7_500_000),
    "openai: at the threshold": (GPT_61_SOL, Usage(272_000, 1000, cached=200_000), 174_000_000),
    "openai: above the threshold": (GPT_61_SOL, Usage(272_001, 1000, cached=200_000), 343_004_000),
    "anthropic: below the threshold": (SONNET_45, Usage(199_999, 1000), 614_997_000),
    "anthropic: at the threshold": (SONNET_45, Usage(200_000, 1000), 615_000_000),
    "anthropic: above the threshold all tokens cost more": (SONNET_45, Usage(200_001, 1000), 1_222_506_000),
    "anthropic: a tier reaches every class": (
        SONNET_45,
        Usage(300_000, 2000, cached=250_000, cache_write=20_000),
        525_000_000,
    ),
    "anthropic: a long output does not reach the tier": (SONNET_45, Usage(100, 300_000), 4_500_300_000),
    "anthropic: cache read and write": (
        HAIKU_45,
        Usage(10_000, 300, cached=8000, cache_write=1500),
        4_675_000,
    ),
    "anthropic: only a cache write": (OPUS_55, Usage(5000, 0, cache_write=5000), 25_000_000),
    "gemini: at the threshold": (GEMINI_25_PRO, Usage(200_000, 100), 251_000_000),
    "gemini: above the threshold": (GEMINI_25_PRO, Usage(200_001, 100), 501_502_500),
    "gemini: cached tokens count for the threshold": (
        GEMINI_25_PRO,
        Usage(250_000, 10, cached=200_000),
        175_150_000,
    ),
    "gemini: audio, cache and thought": (
        GEMINI_25_FLASH,
        Usage(1000, 50, cached=100, audio_prompt=600, reasoning=30),
        818_000,
    ),
    "mistral: codestral": (CODESTRAL, Usage(333, 777), 799_200),
    "mistral: small": (MISTRAL_SMALL, Usage(7, 3), 1_600),
    "groq: one token each": (LLAMA_70B, Usage(1, 1), 1_380),
    "groq: cached without a rate is prompt": (LLAMA_8B, Usage(123, 45, cached=100), 9_750),
    "deepseek: four decimals": (DEEPSEEK_V32, Usage(1000, 1000), 572_000),
    "deepseek: mostly cached": (DEEPSEEK_FLASH, Usage(1001, 1, cached=1000), 3_220),
    "deepseek: 2.8 is rounded to 3": (DEEPSEEK_FLASH, Usage(1, 0, cached=1), 3),
    "xai: cache and reasoning": (GROK_4, Usage(2000, 100, cached=1500, reasoning=60), 4_125_000),
    "xai: just below 200,000": (GROK_47, Usage(199_999, 10), 400_058_000),
    "xai: from 200,000 on": (GROK_47, Usage(200_000, 10), 800_120_000),
    "together: kimi with cache": (KIMI_K3, Usage(600, 40, cached=500), 1_050_000),
    "fireworks: one cached token": (GPT_OSS, Usage(1, 0, cached=1), 15),
    "cerebras: glm": (GLM_47, Usage(400, 600), 2_550_000),
    "cohere: command-a": (COMMAND_A, Usage(4, 2), 30_000),
    "cohere: 37.5 is rounded to the even 38": (COMMAND_R7B, Usage(1, 0), 38),
    "cohere: 112.5 is rounded to the even 112": (COMMAND_R7B, Usage(3, 0), 112),
    "perplexity: reasoning has a rate of its own": (
        SONAR_RESEARCH,
        Usage(100, 1000, reasoning=700),
        4_700_000,
    ),
    "rounding: a half goes to the even nought": (HALF_A_NANO, Usage(1, 0), 0),
    "rounding: one and a half goes to two": (HALF_A_NANO, Usage(3, 0), 2),
    "rounding: two and a half goes to two": (HALF_A_NANO, Usage(5, 0), 2),
    "rounding: two halves make one, rounded once": (HALF_A_NANO, Usage(1, 1), 1),
    "nothing used costs nothing": (GPT_4O, Usage(), 0),
    "a free model costs nothing": (price(prompt="0", completion="0"), Usage(10**6, 10**6), 0),
    "a billion tokens stay exact": (GPT_4O_MINI, Usage(1_000_000_001, 0), 150_000_000_150),
}


@pytest.mark.parametrize(("unit_price", "usage", "nano"), CASES.values(), ids=CASES.keys())
def test_the_cost_is_exact(unit_price: Price, usage: Usage, nano: int) -> None:
    assert cost(usage, unit_price) == nano


def test_dollars_are_exact() -> None:
    assert usd(7_500_001) == Decimal("0.007500001")
    assert usd(0) == 0


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (Usage(100, 0, cached=80, cache_write=30), "110 tokens, more than the 100 of prompt"),
        (Usage(0, 5, reasoning=300), "300 tokens, more than the 5 of completion"),
        (Usage(-1, 0), "prompt is -1"),
        (Usage(10, 10, audio_completion=-2), "audio_completion is -2"),
    ],
)
def test_an_impossible_usage_is_refused_with_both_numbers(usage: Usage, words: str) -> None:
    assert words in fault(usage)
    with pytest.raises(ValueError, match=words):
        cost(usage, GPT_4O)


# --- properties

counts = st.integers(0, 10**7)
amounts = st.decimals(0, 1000, places=6)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, cache_write, audio, text, reasoning, spoken, said = (draw(counts) for _ in range(7))
    return Usage(
        prompt=cached + cache_write + audio + text,
        completion=reasoning + spoken + said,
        cached=cached,
        cache_write=cache_write,
        audio_prompt=audio,
        reasoning=reasoning,
        audio_completion=spoken,
    )


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    base, *dearer = sorted(draw(st.lists(amounts, min_size=1, max_size=3)))
    thresholds = sorted(draw(st.lists(counts, min_size=len(dearer), max_size=len(dearer))))
    return Rate(base, tuple(map(Tier, thresholds, dearer)))


prices = st.builds(
    Price,
    prompt=rates(),
    completion=rates(),
    cached=st.none() | rates(),
    cache_write=st.none() | rates(),
    reasoning=st.none() | rates(),
    audio_prompt=st.none() | rates(),
    audio_completion=st.none() | rates(),
)
CLASSES = ("cached", "cache_write", "audio_prompt", "reasoning", "audio_completion")
WHOLE = dict.fromkeys(("cached", "cache_write", "audio_prompt"), "prompt") | dict.fromkeys(
    ("reasoning", "audio_completion"), "completion"
)


def grown(usage: Usage, **more: int) -> Usage:
    values = {name: getattr(usage, name) for name in ("prompt", "completion", *CLASSES)}
    return Usage(**{name: value + more.get(name, 0) for name, value in values.items()})


@given(usages(), prices, st.sampled_from(("prompt", "completion")), counts)
def test_more_tokens_never_cost_less(usage: Usage, unit_price: Price, whole: str, more: int) -> None:
    assert cost(grown(usage, **{whole: more}), unit_price) >= cost(usage, unit_price)


@given(usages(), rates(), rates())
def test_a_part_is_never_added_to_its_whole(usage: Usage, prompt: Rate, completion: Rate) -> None:
    plain = Price(prompt=prompt, completion=completion)
    assert cost(usage, plain) == cost(Usage(usage.prompt, usage.completion), plain)


@given(usages(), prices, st.sampled_from(CLASSES), counts)
def test_a_free_part_adds_nothing(usage: Usage, unit_price: Price, part: str, more: int) -> None:
    """Tokens of a free class raise the whole and the part alike, so below any tier they change no cost."""
    names = ("prompt", "completion", *CLASSES)
    flat: dict[str, Any] = {name: Rate(value.base) for name in names if (value := getattr(unit_price, name))}
    free = Price(**(flat | {part: rate("0")}))
    assert cost(grown(usage, **{part: more, WHOLE[part]: more}), free) == cost(usage, free)


# --- the bundled list

LISTED = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-6.1-sol"),
    ("openai", "gpt-6-luna"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:org::id"),
    ("azure", "gpt-4.1"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"),
    ("mistral", "mistral-large-latest"),
    ("groq", "openai/gpt-oss-120b"),
    ("deepseek", "deepseek-v3.2"),
    ("x-ai", "grok-4.7"),
    ("together", "moonshotai/Kimi-K3"),
    ("fireworks", "accounts/fireworks/models/kimi-k3"),
    ("cerebras", "zai-glm-4.7"),
    ("cohere", "command-r7b-12-2024"),
    ("openrouter", "anthropic/claude-sonnet-4.6"),
)


@pytest.mark.parametrize("prompt", [1, 1000, 199_999, 200_000, 200_001, 272_001])
@pytest.mark.parametrize(("source", "model"), LISTED)
def test_costs_agree_with_genai_prices(source: str, model: str, prompt: int) -> None:
    usage = Usage(prompt, 321, cached=prompt // 3, cache_write=prompt // 7)
    listed = calc_price(
        ListedUsage(
            input_tokens=usage.prompt,
            output_tokens=usage.completion,
            cache_read_tokens=usage.cached,
            cache_write_tokens=usage.cache_write,
        ),
        model,
        provider_id=source,
        genai_request_timestamp=datetime.combine(DAY, time(12), UTC),
    )
    unit_price = bundled_price(source, model, DAY)
    assert unit_price is not None
    assert cost(usage, unit_price) == round(listed.total_price * 10**9)


def test_a_price_says_where_it_comes_from() -> None:
    found = bundled_price("openai", "gpt-4o-2024-08-06", DAY)
    assert found is not None
    assert found.source.startswith("genai-prices ")
    assert found.source.endswith(": openai/gpt-4o")


def test_a_price_is_that_of_the_day() -> None:
    before, after = (bundled_price("openai", "o3", date(2025, 6, day)) for day in (9, 10))
    assert before is not None
    assert after is not None
    assert [before.prompt.base, after.prompt.base] == [Decimal(10), Decimal(2)]


def test_gemini_names_its_models_with_a_prefix() -> None:
    assert bundled_price("google", "models/gemini-2.5-flash", DAY) == bundled_price(
        "google", "gemini-2.5-flash", DAY
    )


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ("openai", "gpt-99"),
        ("openai", "gpt-4o-mini-next"),
        ("openai", "my-moderation-model"),
        ("openai", "gpt-5-nano-turbo"),
        ("anthropic", "claude-opus-4-10"),
        ("anthropic", "claude-haiku-4-5-lite"),
        ("google", "gemini-3.6-flash-lite"),
        ("google", "gemini-1.5-flash-8b"),
        ("google", "my-claude-opus-5"),
        ("azure", "my-o4-mini"),
        ("openai", "claude-sonnet-4-5"),
        ("nobody", "gpt-4o"),
        (None, "gpt-4o"),
        ("openai", ""),
    ],
)
def test_an_unknown_model_is_never_priced_as_another(source: str | None, model: str) -> None:
    assert bundled_price(source, model, DAY) is None


@pytest.mark.parametrize(
    ("source", "model"),
    [
        pytest.param("perplexity", "sonar", id="a fee per request"),
        pytest.param("deepseek", "deepseek-v4-flash", id="a price by the hour"),
        pytest.param("openai", "gpt-image-1", id="image tokens"),
        pytest.param("openai", "whisper-1", id="audio by the hour"),
        pytest.param("google", "gemma-3-27b-it", id="no price at all"),
    ],
)
def test_a_price_that_tokens_do_not_show_is_none(source: str, model: str) -> None:
    assert bundled_price(source, model, DAY) is None


def test_the_price_list_is_not_loaded_before_it_is_asked() -> None:
    script = (
        "import sys; from datetime import date; from providers import pricing; "
        "pricing.bundled_price(None, 'x', date(2026, 11, 23)); assert 'genai_prices' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
