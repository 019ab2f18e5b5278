"""What the background work keeps: hourly sums, and whose turn each job is."""

from typing import ClassVar

from django.db import models


class UsageRollup(models.Model):
    """Calls of one hour that share project, key, provider, model, end user and state, summed.

    Made from the ledger, and can be made anew from it. References are loose: sums outlive what they point to.
    """

    hour = models.DateTimeField(help_text="Its beginning, UTC.")
    project_id = models.BigIntegerField()
    api_key_id = models.BigIntegerField(null=True)
    provider_slug = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=200, blank=True, help_text="The public name that was asked for.")
    end_user = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=24)
    calls = models.BigIntegerField(default=0)
    unpriced_calls = models.BigIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost_nano_usd = models.BigIntegerField(default=0, help_text="Adjustments included.")
    cached_calls = models.BigIntegerField(default=0, help_text="Answered by the cache, or with another call.")
    saved_nano_usd = models.BigIntegerField(default=0, help_text="What those had cost without the cache.")
    latency_ms = models.BigIntegerField(default=0, help_text="Sum; divide by calls.")

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["hour", "project_id"], name="rollup_hour_project"),
            models.Index(fields=["project_id", "hour"], name="rollup_project_hour"),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}h project {self.project_id}"


class Job(models.Model):
    """A periodic job: when it is due, and which process holds it until when."""

    name = models.CharField(max_length=64, unique=True)
    due_at = models.DateTimeField()
    leased_until = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=120, blank=True)
    last_ended_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=300, blank=True)
    state = models.JSONField(default=dict, help_text="What the job remembers between runs.")

    def __str__(self) -> str:
        return self.name
