"""What `/api/cache/` takes and gives."""

from typing import Any

from rest_framework import serializers

from completions.requests import NAME_CAP
from providers.serializers import StrictSerializer


class CacheQuerySerializer(StrictSerializer):
    """Whose answers."""

    project = serializers.CharField(
        required=False, max_length=NAME_CAP, help_text="A slug; only staff may name another than their own."
    )


class PurgeQuerySerializer(CacheQuerySerializer):
    """Which answers: all that is given must fit."""

    model = serializers.CharField(
        required=False, max_length=NAME_CAP, help_text="Only this model's, as callers name it."
    )
    provider = serializers.CharField(
        required=False, max_length=NAME_CAP, help_text="Only this provider's: a slug."
    )


class CachedSerializer(serializers.Serializer[Any]):
    """What is cached of a project."""

    entries = serializers.IntegerField(help_text="Answers that are kept.")
    bytes = serializers.IntegerField(help_text="What they take.")
    hits = serializers.IntegerField(help_text="How often these were given again.")
    saved_usd = serializers.CharField(
        help_text="What that saved: US dollars as a decimal text. What was saved in all: `/api/usage/`."
    )


class PurgedSerializer(serializers.Serializer[Any]):
    purged = serializers.IntegerField(help_text="Answers that were forgotten.")
