"""Answers that are kept: what the cache holds, as rows that can be looked into."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Coalesce
from django.utils import timezone

from completions.models.accounts import ApiKey, Project
from completions.models.calls import LOOSE


class CachedResponse(models.Model):
    """One answer, kept under the key of the request that brought it.

    The row is the durable part: the hot store is filled from it. Where a project keeps no content, `request`
    and `response` are empty, and the answer lives in the hot store alone.
    """

    key = models.CharField(max_length=64, unique=True, help_text="Hash of scope, model and request.")
    group = models.CharField(
        max_length=64, blank=True, help_text="Hash of all but the question; empty: not compared by meaning."
    )
    vector = models.BinaryField(null=True, help_text="The question's meaning: 32-bit floats, of length 1.")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="cached_responses")
    api_key = models.ForeignKey(ApiKey, **LOOSE)
    end_user = models.CharField(max_length=200, blank=True)
    completion_id = models.UUIDField("call", null=True, help_text="The call that brought the answer.")
    operation = models.CharField(max_length=12)
    provider_slug = models.CharField("provider", max_length=64)
    model = models.CharField(max_length=200, help_text="As callers name it.")
    upstream_model = models.CharField(max_length=200)
    first_words = models.CharField(max_length=200, blank=True, help_text="Of the question.")
    request = models.TextField(blank=True, help_text="What the key is made of, as JSON.")
    response = models.TextField(blank=True, help_text="The whole answer as JSON.")
    facts = models.TextField(help_text="Usage, cost and how the answer ended, as JSON.")
    cost_nano_usd = models.BigIntegerField(
        "cost (nano-dollars)", null=True, help_text="Of the call; each hit saves it."
    )
    size_bytes = models.PositiveIntegerField("size", help_text="Of the answer, and of its request if kept.")
    hits = models.PositiveBigIntegerField(default=0)
    saved_nano_usd = models.BigIntegerField("saved (nano-dollars)", default=0)
    last_hit_at = models.DateTimeField("last hit", null=True)
    created_at = models.DateTimeField("stored")
    expires_at = models.DateTimeField("expires")
    stale_until = models.DateTimeField(help_text="Until then it answers while a fresh one is fetched.")
    pinned = models.BooleanField(default=False, help_text="It stays, and stays fresh, until it is purged.")

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "-pk"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-created_at"], name="cached_newest"),
            models.Index(fields=["stale_until"], name="cached_expiry"),
            models.Index(fields=["group"], name="cached_group", condition=~models.Q(group="")),
            models.Index(fields=["completion_id"], name="cached_call"),
            models.Index(fields=["pinned"], name="cached_pinned", condition=models.Q(pinned=True)),
            # The rest are read without the rows, which are large: sums of a project, and what was not used.
            models.Index(fields=["project", "size_bytes", "hits", "saved_nano_usd"], name="cached_sums"),
            models.Index(Coalesce("last_hit_at", "created_at"), "size_bytes", name="cached_unused"),
        ]

    def __str__(self) -> str:
        return f"{self.key[:12]} ({self.model})"  # no words: the admin's log keeps it after they are erased

    @property
    def is_expired(self) -> bool:
        return not self.pinned and self.expires_at <= timezone.now()
