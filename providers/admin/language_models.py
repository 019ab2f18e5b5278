"""Models of providers and what their tokens cost."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminTextareaWidget

from providers import registry
from providers.admin.base import HubModelAdmin
from providers.admin.forms import ModelForm, name_the_default
from providers.models import CACHE_LABELS, LanguageModel, ModelPrice
from providers.types import CacheMode, Price

PRICE_FIELDS = (
    "valid_from", "prompt", "completion", "cached", "cache_write", "reasoning", "audio_prompt",
    "audio_completion",
)  # fmt: skip


def current_price(model: LanguageModel) -> Price | None:
    """What a call to this model costs today: its override, else the bundled list; None: neither knows it."""
    today = datetime.now(UTC).date()
    in_force = max(
        (row for row in model.prices.all() if row.valid_from <= today), key=_first_day, default=None
    )
    override = registry.price_of(in_force) if in_force else None
    return registry.target_of(model, registry.facts_of(model.provider), override, today).price


def _first_day(row: ModelPrice) -> Any:
    return row.valid_from


def dollars(amount: Decimal) -> str:
    """An exact amount without padding: two decimal places, more where they are needed."""
    places = -int(amount.normalize().as_tuple().exponent)
    return f"{'-' if amount < 0 else ''}${abs(amount):.{max(places, 2)}f}"


class CapabilityFilter(admin.SimpleListFilter):
    title = "capability"
    parameter_name = "capability"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        known = (
            LanguageModel.objects.exclude(capabilities=[]).values_list("capabilities", flat=True).distinct()
        )
        words = {str(word) for row in known if isinstance(row, list) for word in row}
        return [(word, word) for word in sorted(words)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LanguageModel]) -> QuerySet[LanguageModel]:
        word = self.value()
        # As text: SQLite cannot look inside a JSON list.
        return queryset.filter(capabilities__icontains=f'"{word}"') if word else queryset


class ModelPriceInline(TabularInline):  # type: ignore[misc] # unfold has no stubs
    model = ModelPrice
    fields = PRICE_FIELDS
    ordering = ("-valid_from",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Own prices, in USD per million tokens (above the bundled price list)"


class LanguageModelForm(ModelForm):
    class Meta:
        model = LanguageModel
        fields = (
            "provider", "name", "public_name", "context_window", "max_output", "capabilities", "enabled",
            "cache_mode", "cache_ttl_seconds", "cache_stale_seconds", "cache_least_similarity",
        )  # fmt: skip
        widgets: ClassVar = {"capabilities": UnfoldAdminTextareaWidget(attrs={"rows": 3})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "cache_stale_seconds" in self.fields:
            self.fields["cache_stale_seconds"].required = False
        if "cache_mode" in self.fields:
            hub = CACHE_LABELS[CacheMode(settings.LLMHUB_CACHE)]
            name_the_default(self.fields["cache_mode"], f"As the hub does. {hub}")

    def clean_cache_stale_seconds(self) -> int:
        return self.cleaned_data["cache_stale_seconds"] or 0

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        before = self.instance
        if before.pk and name != before.name and before.provider.default_model == before.name:
            raise forms.ValidationError(
                f"{before.name} is the default model of {before.provider}: choose another there first."
            )
        return name

    def clean_capabilities(self) -> list[str]:
        words = self.cleaned_data["capabilities"] or []
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise forms.ValidationError('Write a list of words, e.g. ["chat", "tools", "vision"].')
        return words


@admin.register(LanguageModel)
class LanguageModelAdmin(HubModelAdmin):
    form = LanguageModelForm
    inlines: ClassVar[list[type]] = [ModelPriceInline]
    list_display = (
        "public_name",
        "provider",
        "name",
        "price",
        "context_window",
        "max_output",
        "words",
        "enabled",
    )
    list_filter = ("enabled", "provider", CapabilityFilter)
    search_fields = ("name", "public_name")
    ordering = ("-enabled", "provider__slug", "public_name")
    autocomplete_fields = ("provider",)
    readonly_fields = ("price",)
    actions = ("enable_selected", "disable_selected")
    fieldsets = (
        (
            None,
            {"fields": [("provider", "enabled"), ("name", "public_name"), ("context_window", "max_output")]},
        ),
        ("Capabilities and price", {"fields": ["capabilities", "price"]}),
        (
            "Cache",
            {
                "fields": [
                    "cache_mode",
                    ("cache_ttl_seconds", "cache_stale_seconds"),
                    "cache_least_similarity",
                ]
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[LanguageModel]:
        rows: QuerySet[LanguageModel] = super().get_queryset(request)
        newest = ModelPrice.objects.order_by("-valid_from")
        return rows.select_related("provider").prefetch_related(Prefetch("prices", newest))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("provider", "price") if obj else ("price",)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        defaults = [
            f"{row} (default model of {row.provider}: choose another there first)"
            for row in objs
            if row.provider.default_model == row.name
        ]
        return to_delete, counts, lacking, [*protected, *defaults]

    @admin.display(description="Price per million tokens")
    def price(self, model: LanguageModel) -> SafeString:
        price = current_price(model) if model.pk else None
        context: dict[str, Any] = {"price": price}
        if price is not None:
            context |= {"prompt": dollars(price.prompt.base), "completion": dollars(price.completion.base)}
            context |= {"tiers": bool(price.prompt.tiers or price.completion.tiers)}
        return render_to_string("admin/providers/languagemodel/price.html", context)

    @admin.display(description="Capabilities")
    def words(self, model: LanguageModel) -> str:
        return ", ".join(map(str, model.capabilities)) or "-"

    @admin.action(description="Enable selected models", permissions=["change"])
    def enable_selected(self, request: HttpRequest, models: QuerySet[LanguageModel]) -> None:
        self._switch(request, models, enabled=True)

    @admin.action(description="Disable selected models", permissions=["change"])
    def disable_selected(self, request: HttpRequest, models: QuerySet[LanguageModel]) -> None:
        self._switch(request, models, enabled=False)

    def _switch(self, request: HttpRequest, models: QuerySet[LanguageModel], *, enabled: bool) -> None:
        count = models.order_by().update(enabled=enabled)
        registry.bump()
        word = "can be called now" if enabled else "can no longer be called"
        messages.success(request, f"{count} model{'' if count == 1 else 's'} {word}.")


@admin.register(ModelPrice)
class ModelPriceAdmin(HubModelAdmin):
    list_display = ("model", "valid_from", "prompt", "completion", "cached", "cache_write", "reasoning")
    list_filter = ("model__provider",)
    list_select_related = ("model__provider",)
    search_fields = ("model__name", "model__public_name")
    autocomplete_fields = ("model",)
    date_hierarchy = "valid_from"
    fieldsets = (
        (None, {"fields": [("model", "valid_from")]}),
        (
            "USD per million tokens",
            {"fields": [("prompt", "completion"), ("cached", "cache_write"), "reasoning"]},
        ),
        ("Audio", {"classes": ["collapse"], "fields": [("audio_prompt", "audio_completion")]}),
    )
