"""The in-process snapshot: what is enabled, by which names, at which price, and how soon a change shows."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from providers import registry
from providers.errors import ProviderMisconfigured
from providers.models import LanguageModel, LLMProvider, ModelPrice
from tests.factories import make_provider

pytestmark = pytest.mark.django_db


def names(model: str | None, provider: str | None = None) -> list[str]:
    found = registry.snapshot().resolve(model, provider)
    return [f"{target.endpoint.provider}/{target.upstream_model}" for target in found]


def test_a_model_is_found_by_its_public_name_and_with_its_provider_in_front() -> None:
    make_provider(slug="a", models=({"name": "gpt-4o", "public_name": "big"},))

    assert names("big") == names("a/big") == names("a/gpt-4o") == ["a/gpt-4o"]
    assert names("gpt-4o") == []


def test_candidates_of_one_name_come_in_the_order_of_priority() -> None:
    make_provider(slug="second", models=("m",), priority=20)
    make_provider(slug="first", models=("m",), priority=10)

    assert names("m") == ["first/m", "second/m"]
    assert names("m", "second") == ["second/m"]


def test_without_a_model_the_first_providers_default_is_meant() -> None:
    make_provider(slug="b", models=("x", "y"), default_model="y")

    assert names(None) == names(None, "b") == ["b/y"]


def test_a_public_name_wins_over_another_models_upstream_name() -> None:
    make_provider(
        slug="a", models=({"name": "one", "public_name": "two"}, {"name": "two", "public_name": "three"})
    )

    assert names("a/two") == ["a/one"]


@pytest.mark.parametrize("what", ["provider", "model"])
def test_what_is_disabled_cannot_be_called(what: str) -> None:
    provider = make_provider(slug="a", models=("m",))
    row = provider if what == "provider" else provider.models.get()
    row.enabled = False
    row.save()

    assert names("m") == names("a/m") == names(None) == []


def test_a_saved_change_shows_at_once_in_this_process() -> None:
    provider = make_provider(slug="a", models=("m",))
    assert names("m") == ["a/m"]
    LanguageModel.objects.create(provider=provider, name="n")

    assert names("n") == ["a/n"]


def test_a_change_by_another_process_shows_when_the_snapshot_is_compared() -> None:
    provider = make_provider(slug="a", models=("m",))
    before = registry.snapshot()
    LanguageModel.objects.filter(provider=provider).update(enabled=False)
    with connection.cursor() as cursor:  # what another process's bump does to the database
        cursor.execute("UPDATE providers_registryversion SET version = version + 1")
    assert registry.snapshot() is before
    registry.forget()  # the check is due

    assert names("m") == []


def test_reading_the_snapshot_costs_no_query_until_a_check_is_due() -> None:
    make_provider(slug="a", models=("m",))
    registry.snapshot()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        registry.snapshot()

    assert len(queries) == 0


def test_the_price_in_force_is_the_latest_that_has_begun() -> None:
    model = make_provider(slug="a", models=("m",)).models.get()
    today = datetime.now(UTC).date()
    for begins, dollars in (
        (today - timedelta(9), "1"),
        (today - timedelta(2), "2"),
        (today + timedelta(2), "3"),
    ):
        ModelPrice.objects.create(
            model=model, valid_from=begins, prompt=Decimal(dollars), completion=Decimal(1)
        )

    (target,) = registry.snapshot().resolve("m")
    assert target.price is not None
    assert target.price.prompt.base == Decimal(2)
    assert target.price.source == f"override {(today - timedelta(2)).isoformat()}"


def test_a_known_vendors_model_has_the_bundled_price() -> None:
    make_provider(
        slug="openai", type="openai", preset="openai", api_key="sk-0123456789abcdef", models=("gpt-4o",)
    )

    (target,) = registry.snapshot().resolve("gpt-4o")
    assert target.price is not None
    assert "genai-prices" in target.price.source


def test_a_provider_whose_key_cannot_be_decrypted_is_listed_as_unusable(settings: object) -> None:
    make_provider(slug="a", models=("m",), api_key="sk-0123456789abcdef")
    settings.LLMHUB_ENCRYPTION_KEYS = ["another key altogether"]  # type: ignore[attr-defined]
    registry.bump()

    (target,) = registry.snapshot().resolve("m")
    assert "LLMHUB_ENCRYPTION_KEYS" in target.unusable
    with pytest.raises(ProviderMisconfigured):
        registry.snapshot().endpoint("a")


def test_a_snapshot_never_shows_a_key() -> None:
    make_provider(slug="a", models=("m",), api_key="sk-canary-0123456789")

    assert "canary" not in repr(registry.snapshot())
    assert LLMProvider.objects.get().api_key == "sk-canary-0123456789"
