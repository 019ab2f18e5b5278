"""The provider form: validated together with the posted models, and with a key that is only ever written."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from providers.checks import provider_problems
from providers.models import LanguageModel, LLMProvider
from providers.presets import PRESETS

MAX_POSTED_ROWS = 1000  # rows of the inline that are looked at; Django refuses larger forms anyway


def preset_choices() -> list[tuple[str, str]]:
    return [
        ("", "None: I fill in the form myself"),
        *((key, preset.label) for key, preset in PRESETS.items()),
    ]


def name_the_default(field: forms.Field, label: str) -> None:
    """Say what the empty choice of a field means here."""
    choices: Any = field.choices  # type: ignore[attr-defined]
    field.choices = [("", label), *((key, name) for key, name in choices if key)]  # type: ignore[attr-defined]


def model_names(data: Mapping[str, Any], provider: LLMProvider) -> list[str]:
    """The names of the provider's models as they will be once the posted rows are saved."""
    stored = {} if provider._state.adding else dict(provider.models.values_list("pk", "name"))
    names: dict[object, str] = {str(pk): name for pk, name in stored.items()}
    total = str(data.get("models-TOTAL_FORMS") or 0)
    for index in range(min(int(total), MAX_POSTED_ROWS) if total.isdecimal() else 0):
        row = f"models-{index}-"
        key = data.get(row + "id") or index
        name = str(data.get(row + "name") or "").strip()
        if data.get(row + "DELETE") or not name:
            names.pop(key, None)
        else:
            names[key] = name
    return list(names.values())


class KeyInput(UnfoldAdminPasswordWidget):  # type: ignore[misc] # unfold has no stubs
    """A password box that never shows the stored key; left empty, it counts as not sent, so the key stays."""

    def value_omitted_from_data(self, data: Mapping[str, Any], files: Any, name: str) -> bool:
        return not data.get(name)


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    preset = forms.ChoiceField(
        label="Vendor",
        choices=preset_choices,
        required=False,
        widget=UnfoldAdminSelectWidget(),
        help_text="Choosing one fills in the type, the base URL and, where they are empty, name and models.",
    )
    api_key = forms.CharField(
        label="API key",
        required=False,
        widget=KeyInput(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
        help_text="Stored encrypted. Only its last four characters are ever shown again.",
    )
    clear_api_key = forms.BooleanField(
        label="Remove the stored key", required=False, widget=UnfoldBooleanWidget()
    )

    class Meta:
        model = LLMProvider
        fields = (
            "preset", "name", "slug", "type", "base_url", "api_key", "organization", "project", "enabled",
            "default_model", "default_config", "priority", "connect_timeout_seconds",
            "first_token_timeout_seconds", "idle_timeout_seconds", "total_timeout_seconds",
        )  # fmt: skip
        widgets: ClassVar = {"default_config": UnfoldAdminTextareaWidget(attrs={"rows": 4})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._has_stored_key() and "api_key" in self.fields:
            self.fields["api_key"].widget.attrs["placeholder"] = "Leave empty to keep the stored key"

    def clean_base_url(self) -> str:
        return str(self.cleaned_data["base_url"]).strip()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        names = model_names(self.data, self.instance)
        for field, problem in provider_problems(values, names, has_key=self._will_have_key()).items():
            if field in self.fields and field not in self.errors:
                self.add_error(field, problem)
        return values

    def _will_have_key(self) -> bool:
        kept = self._has_stored_key() and not self.cleaned_data.get("clear_api_key")
        return bool(self.cleaned_data.get("api_key")) or kept

    def _has_stored_key(self) -> bool:
        return bool(self.instance.__dict__.get("api_key"))

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc] # a hook of Django's that the stubs leave out
        if self.cleaned_data.get("clear_api_key") and not self.cleaned_data.get("api_key"):
            self.instance.api_key = ""

    def _get_validation_exclusions(self) -> set[str]:
        # Validating the instance would read the stored key, which fails where it cannot be decrypted: such a
        # provider must still be editable.
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return exclusions | {"api_key"}


class ModelForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    """A language model. A public name left empty becomes the name here, as two empty ones would clash."""

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        values["public_name"] = values.get("public_name") or values.get("name", "")
        return values


class ModelsFormSet(PaginationInlineFormSet):  # type: ignore[misc] # unfold has no stubs
    """The models of a provider; at least one, counting those on other pages."""

    def clean(self) -> None:
        super().clean()
        names = model_names(self.data, self.instance)
        problem = provider_problems({"name": "-", "type": "demo"}, names, has_key=True).get("models")
        if problem:
            raise ValidationError(problem)

    def _existing_object(self, pk: Any) -> LanguageModel:
        # A row may have moved to another page since the form was shown.
        found: LanguageModel | None = next((row for row in self.get_queryset() if row.pk == pk), None)
        return found or LanguageModel.objects.get(pk=pk, provider=self.instance)
