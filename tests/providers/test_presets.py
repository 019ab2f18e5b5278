"""Every vendor is a complete row, and a provider gets its facts from the row it names."""

from datetime import date
from urllib.parse import urlsplit

import pytest
from genai_prices.data import providers as price_lists

from providers.presets import PRESETS, Preset, base_url_of, default_preset, price_source_of, quirks_of
from providers.pricing import bundled_price
from providers.types import ProviderType, Quirks

DAY = date(2026, 11, 23)
NETWORKED = [row for row in PRESETS.values() if row.type != ProviderType.DEMO]
VENDORS = {
    "openai", "azure_openai", "anthropic", "gemini", "mistral", "groq", "deepseek", "xai", "together",
    "fireworks", "openrouter", "perplexity", "cerebras", "cohere", "ollama", "vllm", "llama_cpp", "lm_studio",
    "demo",
}  # fmt: skip


def by_slug(row: Preset) -> str:
    return row.slug


def test_the_promised_vendors_are_there() -> None:
    assert PRESETS.keys() >= VENDORS


@pytest.mark.parametrize("row", PRESETS.values(), ids=by_slug)
def test_a_row_is_found_by_its_own_slug(row: Preset) -> None:
    assert PRESETS[row.slug] is row
    assert row.label
    assert len(row.slug) <= 32  # the column's length


@pytest.mark.parametrize("row", NETWORKED, ids=by_slug)
def test_a_row_says_where_its_facts_come_from(row: Preset) -> None:
    assert row.source.startswith("https://")


@pytest.mark.parametrize("row", NETWORKED, ids=by_slug)
def test_a_row_has_an_address_or_shows_the_shape_of_one(row: Preset) -> None:
    assert bool(row.base_url) != bool(row.base_url_hint)
    parts = urlsplit(row.base_url or row.base_url_hint)
    assert parts.hostname
    assert not parts.path.endswith("/")


@pytest.mark.parametrize("row", NETWORKED, ids=by_slug)
def test_only_local_servers_go_without_tls_and_key(row: Preset) -> None:
    parts = urlsplit(row.base_url or row.base_url_hint)
    local = parts.hostname == "127.0.0.1"
    assert local == (parts.scheme == "http")
    assert local != row.needs_key
    assert local != bool(row.key_url)


@pytest.mark.parametrize("row", PRESETS.values(), ids=by_slug)
def test_a_price_source_is_a_list_that_exists(row: Preset) -> None:
    assert row.price_source is None or row.price_source in {prices.id for prices in price_lists}


@pytest.mark.parametrize("slug", sorted(VENDORS - {"deepseek", "perplexity"}))
def test_the_example_models_of_a_priced_vendor_have_prices(slug: str) -> None:
    row = PRESETS[slug]
    unpriced = [name for name in row.example_models if bundled_price(row.price_source, name, DAY) is None]
    assert unpriced == ([] if row.price_source else list(row.example_models))


@pytest.mark.parametrize("slug", ["deepseek", "perplexity"])
def test_a_vendor_without_token_prices_tells_staff(slug: str) -> None:
    assert "set your own" in PRESETS[slug].note or "prices of your own" in PRESETS[slug].note


def test_each_vendor_type_stands_for_its_vendor() -> None:
    assert {kind: getattr(default_preset(kind), "slug", None) for kind in ProviderType} == {
        ProviderType.OPENAI: "openai",
        ProviderType.AZURE_OPENAI: "azure_openai",
        ProviderType.ANTHROPIC: "anthropic",
        ProviderType.DEMO: "demo",
        ProviderType.OPENAI_COMPATIBLE: None,
    }


def test_openai_and_azure_bound_output_by_the_new_name() -> None:
    assert quirks_of(ProviderType.OPENAI, "").output_bound == "max_completion_tokens"
    azure = quirks_of(ProviderType.AZURE_OPENAI, "")
    assert (azure.output_bound, azure.auth_header) == ("max_completion_tokens", "api-key")


def test_a_compatible_provider_has_the_quirks_of_the_vendor_it_names() -> None:
    assert quirks_of(ProviderType.OPENAI_COMPATIBLE, "mistral") == Quirks(stream_usage_option=False)
    assert quirks_of(ProviderType.OPENAI_COMPATIBLE, "") == Quirks()
    assert quirks_of(ProviderType.OPENAI_COMPATIBLE, "gone-from-the-list") == Quirks()


def test_a_preset_of_another_type_is_not_followed() -> None:
    assert base_url_of(ProviderType.OPENAI, "mistral", "") == "https://api.openai.com/v1"
    assert price_source_of(ProviderType.OPENAI_COMPATIBLE, "openai") is None


def test_the_address_that_staff_gave_wins() -> None:
    assert (
        base_url_of(ProviderType.OPENAI, "openai", "https://eu.example.com/v1/")
        == "https://eu.example.com/v1"
    )


def test_an_address_that_nobody_knows_is_empty() -> None:
    assert base_url_of(ProviderType.AZURE_OPENAI, "azure_openai", "") == ""
    assert base_url_of(ProviderType.OPENAI_COMPATIBLE, "", "") == ""
