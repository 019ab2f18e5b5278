"""Unit prices as a ledger row keeps them, and the lines that people check a cost by."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.pricing import cost, dump, lines, load, total, whole_nanos
from providers.types import Price, Rate, Tier, Usage

amounts = st.decimals(min_value=0, max_value=10**6, places=9)
tiers = st.lists(st.builds(Tier, st.integers(0, 10**7), amounts), max_size=3).map(tuple)
rates = st.builds(Rate, amounts, tiers)
prices = st.builds(Price, rates, rates, *(st.none() | rates for _ in range(5)))
counts = st.integers(0, 10**9)


@given(prices)
def test_prices_come_back_as_they_were(price: Price) -> None:
    assert load(dump(price)) == price


whole_rates = st.builds(Rate, st.integers(0, 10**5).map(lambda thousandths: Decimal(thousandths) / 1000))
whole_prices = st.builds(Price, whole_rates, whole_rates, *(st.none() | whole_rates for _ in range(5)))
parts = st.integers(0, 10**6)


@given(whole_prices, counts, counts, st.tuples(parts, parts, parts, parts, parts))
def test_prices_of_whole_nano_dollars_come_to_the_same_as_their_lines(
    price: Price, text: int, answer: int, of: tuple[int, int, int, int, int]
) -> None:
    cached, written, reasoning, heard, spoken = of
    usage = Usage(text + cached + written + heard, answer + reasoning + spoken, *of)
    assert whole_nanos(price) is not None
    assert cost(usage, price) == total(lines(usage, price))


@given(prices | whole_prices, st.builds(lambda *both: Usage(*both), counts, counts))
def test_the_lines_of_a_cost_come_to_the_cost(price: Price, usage: Usage) -> None:
    assert total(lines(usage, price)) == cost(usage, price)


def test_prices_are_written_compactly_and_without_their_source() -> None:
    price = Price(
        Rate(Decimal("2.50"), (Tier(200_000, Decimal(5)),)),
        Rate(Decimal(10)),
        cached=Rate(Decimal("1E-3")),
        source="override 2026-11-01",
    )
    assert (
        dump(price) == '{"prompt":{"base":"2.50","tiers":[[200000,"5"]]},"completion":"10","cached":"0.001"}'
    )
    assert load(dump(price), "override 2026-11-01") == price


def test_a_line_shows_the_rate_that_was_applied() -> None:
    price = Price(Rate(Decimal(1), (Tier(100, Decimal(3)),)), Rate(Decimal(4)), cached=Rate(Decimal("0.1")))
    found = lines(Usage(prompt=200, completion=10, cached=50, reasoning=4), price)
    assert [(line.name, line.tokens, line.rate, line.nano) for line in found] == [
        ("prompt", 150, Decimal(3), Decimal(450_000)),
        ("cached", 50, Decimal("0.1"), Decimal(5_000)),
        ("completion", 6, Decimal(4), Decimal(24_000)),
        ("reasoning", 4, Decimal(4), Decimal(16_000)),
    ]


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"prompt":1}', '{"prompt":"x","completion":"1"}'])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load(text)
