"""Providers: what they are, whether their key and health are good, and a real test of both."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.admin import TabularInline

from providers import upstreams
from providers.admin.base import HubModelAdmin, badge, detail_action
from providers.admin.forms import ModelForm, ModelsFormSet, ProviderForm
from providers.errors import ProviderMisconfigured, UpstreamError
from providers.models import Health, KeyState, LanguageModel, LLMProvider
from providers.presets import PRESETS, Preset
from providers.types import Validation

HEALTH_KINDS = {
    Health.OK: "success",
    Health.AUTH_FAILED: "danger",
    Health.FAILING: "danger",
    Health.UNKNOWN: "",
}
# A change of one of these makes the last test say nothing about the provider any more.
CONNECTION_FIELDS = {"preset", "type", "base_url", "api_key", "clear_api_key", "organization", "project"}
NAMES_SHOWN = 5


def key_badge(provider: LLMProvider) -> SafeString:
    state = provider.key_state
    if state == KeyState.SET:
        return badge("success", "Set", f"…{provider.api_key_last4}" if provider.api_key_last4 else "")
    if state == KeyState.NONE:
        return badge("", "None")
    return badge("danger", "Cannot be decrypted")


def health_badge(provider: LLMProvider) -> SafeString:
    if not provider.enabled:
        return badge("", "Disabled")
    return badge(HEALTH_KINDS[Health(provider.health)], Health(provider.health).label)


def preset_facts(preset: Preset) -> dict[str, object]:
    """What the form fills in, and says, when this vendor is chosen."""
    return {
        "label": preset.label,
        "type": str(preset.type),
        "base_url": preset.base_url,
        "base_url_hint": preset.base_url_hint,
        "models": preset.example_models,
        "key_url": preset.key_url,
        "note": preset.note,
    }


def some(names: list[str]) -> str:
    """A few names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


class LanguageModelInline(TabularInline):  # type: ignore[misc] # unfold has no stubs
    model = LanguageModel
    form = ModelForm
    formset = ModelsFormSet
    fields = ("name", "public_name", "context_window", "max_output", "enabled")
    ordering = ("-enabled", "name")
    extra = 0
    per_page = 50  # a vendor may list hundreds: more rows would pass Django's limit of fields in one form
    show_change_link = True
    hide_title = True
    verbose_name_plural = "Models callers may use"

    def get_extra(self, request: HttpRequest, obj: LLMProvider | None = None, **kwargs: Any) -> int:
        return 0 if obj else 1


@admin.register(LLMProvider)
class LLMProviderAdmin(HubModelAdmin):
    form = ProviderForm
    inlines: ClassVar[list[type]] = [LanguageModelInline]
    change_form_after_template = "admin/providers/llmprovider/presets.html"
    list_display = (
        "name", "type", "model_count", "key", "health_now", "checked_at", "priority", "enabled",
    )  # fmt: skip
    list_filter = ("type", "health", "enabled")
    search_fields = ("name", "slug", "base_url")
    readonly_fields = ("stored_key", "health_now", "health_message", "checked_at")
    actions = ("test_selected", "enable_selected", "disable_selected")
    actions_detail = ("test_connection", "sync_models")

    class Media:
        js = ("providers/provider_form.js", "providers/post_actions.js")

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, tuple[str, ...]]:
        return {} if obj else {"slug": ("name",)}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        key = (
            ["stored_key", "api_key", "clear_api_key"] if obj and obj.__dict__.get("api_key") else ["api_key"]
        )
        health = [("Health", {"fields": [("health_now", "checked_at"), "health_message"]})] if obj else []
        return [
            *health,
            ("Provider", {"fields": ["preset", ("name", "slug"), ("type", "base_url"), *key]}),
            ("Defaults", {"fields": ["default_model", "default_config", ("priority", "enabled")]}),
            (
                "Timeouts in seconds",
                {
                    "classes": ["collapse"],
                    "fields": [
                        ("connect_timeout_seconds", "first_token_timeout_seconds"),
                        ("idle_timeout_seconds", "total_timeout_seconds"),
                    ],
                },
            ),
            (
                "OpenAI organization and project",
                {"classes": ["collapse"], "fields": [("organization", "project")]},
            ),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[LLMProvider]:
        rows: QuerySet[LLMProvider] = super().get_queryset(request)
        return rows.annotate(models_enabled=Count("models", filter=Q(models__enabled=True)))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        presets = {key: preset_facts(preset) for key, preset in PRESETS.items()}
        answer: HttpResponse = super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), "provider_presets": presets}
        )
        return answer

    def save_model(self, request: HttpRequest, obj: LLMProvider, form: Any, change: bool) -> None:
        if change and CONNECTION_FIELDS & set(form.changed_data):
            obj.health, obj.health_message, obj.checked_at = Health.UNKNOWN, "", None
        super().save_model(request, obj, form, change)

    @admin.display(description="Models", ordering="models_enabled")
    def model_count(self, provider: Any) -> int:
        return int(provider.models_enabled)

    @admin.display(description="Key")
    def key(self, provider: LLMProvider) -> SafeString:
        return key_badge(provider)

    @admin.display(description="Stored key")
    def stored_key(self, provider: LLMProvider) -> SafeString:
        return key_badge(provider)

    @admin.display(description="Health", ordering="health")
    def health_now(self, provider: LLMProvider) -> SafeString:
        return health_badge(provider)

    @detail_action(
        "Test connection", icon="network_check", permission="change", attrs={"data-post": "Testing…"}
    )
    def test_connection(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self.ask_or_run(request, object_id, "Call this provider now, with its stored key?", tested)

    @detail_action("Sync models", icon="sync", permission="change", attrs={"data-post": "Asking…"})
    def sync_models(self, request: HttpRequest, object_id: str) -> HttpResponse:
        question = "Ask this provider for its models, and add those that are new, disabled?"

        def run(provider: LLMProvider) -> tuple[int, str]:
            level, text = synced(provider)
            if level != messages.ERROR:
                self.log_change(request, provider, "Synced models.")
            return level, text

        return self.ask_or_run(request, object_id, question, run)

    @admin.action(description="Test connection of selected providers", permissions=["change"])
    def test_selected(self, request: HttpRequest, providers: QuerySet[LLMProvider]) -> None:
        for provider in providers:
            level, text = tested(provider)
            messages.add_message(request, level, f"{provider}: {text}")

    @admin.action(description="Enable selected providers", permissions=["change"])
    def enable_selected(self, request: HttpRequest, providers: QuerySet[LLMProvider]) -> None:
        self._switch(request, providers, enabled=True)

    @admin.action(description="Disable selected providers", permissions=["change"])
    def disable_selected(self, request: HttpRequest, providers: QuerySet[LLMProvider]) -> None:
        self._switch(request, providers, enabled=False)

    def _switch(self, request: HttpRequest, providers: QuerySet[LLMProvider], *, enabled: bool) -> None:
        for provider in providers:
            provider.enabled = enabled
            provider.save(update_fields=["enabled", "updated_at"])
            self.log_change(request, provider, f"{'Enabled' if enabled else 'Disabled'} from the list.")
        messages.success(
            request, f"{'Enabled' if enabled else 'Disabled'}: {some([str(row) for row in providers])}."
        )


def tested(provider: LLMProvider) -> tuple[int, str]:
    """Test the connection; a message level and what to tell staff."""
    outcome: Validation = upstreams.check_provider(provider)
    if not outcome.ok:
        return messages.ERROR, outcome.message
    listed = (
        f": {outcome.models} model{'' if outcome.models == 1 else 's'}" if outcome.models is not None else ""
    )
    return messages.SUCCESS, f"Connected in {outcome.latency_ms} ms{listed}."


def synced(provider: LLMProvider) -> tuple[int, str]:
    """Sync the models; a message level and what to tell staff."""
    try:
        outcome = upstreams.sync_models(provider)
    except (UpstreamError, ProviderMisconfigured) as error:
        return messages.ERROR, f"The models could not be listed: {error}"
    told = [
        f"{len(outcome.added)} new" + (f", added disabled: {some(outcome.added)}" if outcome.added else "")
    ]
    told.append(f"{len(outcome.known)} already here")
    if outcome.missing:
        told.append(f"{len(outcome.missing)} no longer offered: {some(outcome.missing)}")
    hint = " Enable below those that callers may use." if outcome.added else ""
    return messages.SUCCESS if not outcome.missing else messages.WARNING, "; ".join(told) + "." + hint
