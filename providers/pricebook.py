"""What a model cost on a day, by what is known now: calls of the past are priced anew with it."""

from datetime import date

from providers import presets, pricing, registry
from providers.models import LanguageModel, ModelPrice
from providers.types import Price, ProviderType


class PriceBook:
    """Prices by provider and upstream name, disabled ones too. Reads each model once: for one job."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], LanguageModel | None] = {}
        self._overrides: dict[int, list[ModelPrice]] = {}

    def price(self, provider_slug: str, upstream_model: str, day: date) -> Price | None:
        """The override in force on a UTC day, else the bundled list's; None: neither knows one."""
        model = self._model(provider_slug, upstream_model)
        if model is None:
            return None
        override = next((row for row in self._overrides[model.pk] if row.valid_from <= day), None)
        if override is not None:
            return registry.price_of(override)
        kind = ProviderType(model.provider.type)
        source = presets.price_source_of(kind, model.provider.preset)
        return pricing.bundled_price(source, model.name, day)

    def _model(self, provider_slug: str, upstream_model: str) -> LanguageModel | None:
        key = (provider_slug, upstream_model)
        if key not in self._models:
            found = LanguageModel.objects.select_related("provider").filter(
                provider__slug=provider_slug, name=upstream_model
            )
            model = self._models[key] = found.first()
            if model is not None:
                self._overrides[model.pk] = list(model.prices.order_by("-valid_from"))
        return self._models[key]


def price_on(model: LanguageModel, day: date) -> Price | None:
    """What a token of `model` cost on a UTC day."""
    return PriceBook().price(model.provider.slug, model.name, day)
