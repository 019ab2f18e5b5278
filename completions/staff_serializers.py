"""Projects, keys and budgets as staff read and write them through `/api/admin/`."""

from typing import Any, ClassVar

from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework import serializers

from completions.keys import LONGEST_OVERLAP
from completions.models import ApiKey, Budget, Project
from completions.models.accounts import validate_names
from completions.models.budgets import validate_thresholds
from providers.serializers import DollarsField, PlainJSON, StrictSerializer


class ProjectSerializer(StrictSerializer, serializers.ModelSerializer[Project]):
    members = serializers.SlugRelatedField(
        slug_field="username",
        many=True,
        required=False,
        queryset=Project._meta.get_field("members").related_model._default_manager.all(),
        help_text="User names of the people who may call for this project.",
    )

    class Meta:
        model = Project
        fields: ClassVar[list[str]] = [
            "slug", "name", "members", "time_zone", "content_days", "cache_scope", "cache_group", "enabled",
            "created_at",
        ]  # fmt: skip
        read_only_fields: ClassVar[list[str]] = ["created_at"]


class ApiKeySerializer(StrictSerializer, serializers.ModelSerializer[ApiKey]):
    project = serializers.SlugRelatedField(slug_field="slug", queryset=Project.objects.all())

    class Meta:
        model = ApiKey
        fields: ClassVar[list[str]] = [
            "id", "project", "name", "public_id", "last4", "allowed_models", "requests_per_minute",
            "tokens_per_minute", "concurrent_calls", "log_content", "cache_mode", "created_at", "expires_at",
            "old_valid_until", "revoked_at", "last_used_at",
        ]  # fmt: skip
        read_only_fields: ClassVar[list[str]] = [
            "public_id", "last4", "created_at", "old_valid_until", "revoked_at", "last_used_at",
        ]  # fmt: skip
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "allowed_models": {"validators": [validate_names, PlainJSON()]},
            "old_valid_until": {"help_text": "After a rotation: until then the key before works too."},
        }

    def validate_project(self, project: Project) -> Project:
        if self.instance is not None and self.instance.project_id != project.pk:
            raise serializers.ValidationError("A key cannot move to another project. Make a new key there.")
        return project


class NewApiKeySerializer(ApiKeySerializer):
    """A key as it is shown once, right after it was made or rotated."""

    key = serializers.CharField(read_only=True, help_text="The key itself. It is never shown again.")

    class Meta(ApiKeySerializer.Meta):
        fields: ClassVar[list[str]] = [*ApiKeySerializer.Meta.fields, "key"]


class RotationSerializer(StrictSerializer):
    """How a key is rotated."""

    overlap_hours = serializers.IntegerField(
        required=False,
        default=24,
        min_value=0,
        max_value=LONGEST_OVERLAP.days * 24,
        help_text="How long the key before works on. 0: it stops at once.",
    )


class BudgetSerializer(StrictSerializer, serializers.ModelSerializer[Budget]):
    """Whose budget it is, its period and whether it is per end user stay as they were made."""

    project = serializers.SlugRelatedField(slug_field="slug", queryset=Project.objects.all())
    api_key = serializers.PrimaryKeyRelatedField(
        queryset=ApiKey.objects.all(),
        required=False,
        allow_null=True,
        default=None,
        help_text="Id of a key of the project. Left out: the whole project.",
    )
    amount = DollarsField(help_text="US dollars per period.")
    webhook_secret = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=4096,
        help_text="Signs the webhook's posts. Stored encrypted and never shown. Left out: stays as it is.",
    )

    class Meta:
        model = Budget
        fields: ClassVar[list[str]] = [
            "id", "project", "api_key", "per_end_user", "amount", "period", "hard", "thresholds",
            "webhook_url", "webhook_secret", "enabled", "created_at",
        ]  # fmt: skip
        read_only_fields: ClassVar[list[str]] = ["id", "created_at"]
        validators: ClassVar[list[Any]] = []  # the row's own, below
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "period": {"required": True},
            "thresholds": {"validators": [validate_thresholds]},
        }

    FIXED = ("project", "api_key", "period", "per_end_user")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        known = self.instance if isinstance(self.instance, Budget) else None
        if known is not None:
            attrs = {name: value for name, value in attrs.items() if name in self.initial_data}
        for name in self.FIXED if known is not None else ():
            if name in attrs and attrs[name] != getattr(known, name):
                raise serializers.ValidationError({name: "This cannot change. Make another budget."})
        row = Budget(**self._facts(known) | attrs)
        row._state.adding = known is None
        if row.webhook_url and not row.__dict__["webhook_secret"]:
            raise serializers.ValidationError(
                {"webhook_secret": "A webhook's posts are signed: give a secret."}
            )
        try:
            row.full_clean(exclude=["id", "webhook_secret"], validate_unique=False)
        except DjangoValidationError as error:
            found = error.message_dict
            if NON_FIELD_ERRORS in found:
                found["period"] = found.pop(NON_FIELD_ERRORS)
            raise serializers.ValidationError(found) from None
        return attrs

    def _facts(self, known: Budget | None) -> dict[str, Any]:
        if known is None:
            return {}
        names = [field.attname for field in Budget._meta.concrete_fields if field.name != "webhook_secret"]
        facts = {name: getattr(known, name) for name in names}
        return facts | {"webhook_secret": known.__dict__.get("webhook_secret", "")}
