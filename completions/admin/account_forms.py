"""The forms of keys and budgets: lists as plain text, and a secret that is only ever written."""

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from completions.models import ApiKey, Budget
from completions.models.budgets import default_thresholds
from providers.admin.forms import KeyInput, name_the_default


class NamesField(forms.CharField):
    """A list of names, one a line."""

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, list):
            return value
        names = [line.strip() for line in str(value or "").splitlines()]
        return list(dict.fromkeys(name for name in names if name))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.to_python(data) != (initial or []))


class PercentagesField(forms.CharField):
    """Whole percentages in one line: 50, 80, 100."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, list):
            return value
        words = str(value or "").replace("%", " ").replace(",", " ").split()
        if not all(word.isascii() and word.isdigit() and len(word) <= 4 for word in words):
            raise ValidationError("Write whole percentages, e.g. 50, 80, 100.")
        return sorted({int(word) for word in words})

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or []))
        except ValidationError:
            return True


class KeyForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    allowed_models = NamesField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4, "placeholder": "gpt-4o\nlocal/gemma"}),
        help_text="Public names, one a line, plain or as provider/name. Left empty: all models.",
    )

    class Meta:
        model = ApiKey
        fields = (
            "project", "name", "expires_at", "allowed_models", "requests_per_minute", "tokens_per_minute",
            "concurrent_calls", "log_content", "cache_mode",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "cache_mode" in self.fields:
            name_the_default(self.fields["cache_mode"], "As the model says")


class BudgetForm(forms.ModelForm):  # type: ignore[type-arg] # not subscriptable at run time
    thresholds = PercentagesField(
        label="Alert at",
        required=False,
        initial=default_thresholds,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Per cent of the amount, e.g. 50, 80, 100. Left empty: no alerts.",
    )
    webhook_secret = forms.CharField(
        label="Webhook secret",
        required=False,
        widget=KeyInput(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
        help_text="Signs each post (HMAC-SHA256). Stored encrypted and never shown again.",
    )

    class Meta:
        model = Budget
        fields = (
            "project", "api_key", "per_end_user", "amount", "period", "hard", "thresholds", "webhook_url",
            "webhook_secret", "enabled",
        )  # fmt: skip
        labels: ClassVar = {"hard": "Refuse calls that could exceed it", "per_end_user": "For each end user"}
        help_texts: ClassVar = {
            "project": "Left empty: the project of the key.",
            "hard": "Otherwise nothing is refused, and you are only alerted.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "project" in self.fields:
            self.fields["project"].required = False
        if self._has_secret() and "webhook_secret" in self.fields:
            self.fields["webhook_secret"].widget.attrs["placeholder"] = "Leave empty to keep the stored one"

    def clean_webhook_url(self) -> str:
        return str(self.cleaned_data["webhook_url"]).strip()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        key = values.get("api_key")
        if "project" in self.fields and not values.get("project") and "project" not in self.errors:
            if key is None:
                self.add_error("project", "Choose a project, or one of its keys.")
            else:
                values["project"] = key.project
        if values.get("webhook_url") and not values.get("webhook_secret") and not self._has_secret():
            self.add_error("webhook_secret", "A webhook's posts are signed: give a secret that it knows too.")
        return values

    def _has_secret(self) -> bool:
        return bool(self.instance.__dict__.get("webhook_secret"))

    def _get_validation_exclusions(self) -> set[str]:
        # Validating the instance would read the stored secret, which fails where it cannot be decrypted: such
        # a budget must still be editable. A project that follows from the key is judged like a chosen one.
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        exclusions.add("webhook_secret")
        return exclusions if "project" in self.errors else exclusions - {"project"}
