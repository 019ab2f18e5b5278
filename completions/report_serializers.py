"""What `/api/usage/` and `/api/budgets/` take and give."""

import csv
import io
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from completions.reports import INTERVALS, SUBJECTS, UsageRow
from completions.serializers import dollars
from providers import pricing
from providers.serializers import StrictSerializer
from providers.types import JSON

DEFAULT_SPAN = timedelta(days=30)
OWN_SUBJECTS = tuple(subject for subject in SUBJECTS if subject != "project")  # there is one: the caller's
# What makes a spreadsheet take a text for a formula, full-width forms included.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
COLUMNS = (
    "start", "group", "label", "calls", "unpriced_calls", "prompt_tokens", "cached_tokens",
    "completion_tokens", "reasoning_tokens", "cost", "cached_calls", "saved", "latency_ms",
)  # fmt: skip


class UsageQuerySerializer(StrictSerializer):
    """Query parameters of the usage report."""

    since = serializers.DateTimeField(
        required=False,
        help_text="From its hour on (ISO 8601). Left out: 30 days before `until`.",
    )
    until = serializers.DateTimeField(
        required=False, help_text="Up to this time, rounded up to an hour. Left out: now."
    )
    interval = serializers.ChoiceField(
        choices=INTERVALS, default="day", help_text="Length of a bucket, in the project's time zone."
    )
    group_by = serializers.ChoiceField(
        choices=OWN_SUBJECTS,
        required=False,
        help_text="A row for each. Left out: one per bucket.",
    )
    format = serializers.ChoiceField(choices=("json", "csv"), default="json", help_text="csv: a download.")

    def validate(self, attrs: JSON) -> JSON:
        attrs.setdefault("until", timezone.now())
        try:
            attrs.setdefault("since", attrs["until"] - DEFAULT_SPAN)
        except OverflowError:
            raise serializers.ValidationError({"until": "Too long ago."}) from None
        return attrs


class UsageSerializer(serializers.Serializer[Any]):
    calls = serializers.IntegerField(help_text="Calls that ended, however they ended.")
    unpriced_calls = serializers.IntegerField(help_text="Calls whose cost is not known, and not in `cost`.")
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField(help_text="Part of prompt_tokens.")
    completion_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField(help_text="Part of completion_tokens.")
    cost = serializers.CharField(help_text="US dollars as a decimal text, corrections included.")
    cached_calls = serializers.IntegerField(help_text="Answered by the cache, or with an equal call.")
    saved = serializers.CharField(help_text="What those had cost without the cache: US dollars as text.")
    latency_ms = serializers.IntegerField(help_text="Mean of a call.")


class UsageRowSerializer(UsageSerializer):
    start = serializers.DateTimeField(help_text="When the bucket begins, in the project's time zone.")
    group = serializers.CharField(
        help_text="The value of `group_by`: of keys and projects the id; empty where a call had none."
    )
    label = serializers.CharField(help_text="Its name, for people.")  # type: ignore[assignment]


class UsageReportSerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    interval = serializers.ChoiceField(choices=INTERVALS)
    group_by = serializers.ChoiceField(choices=OWN_SUBJECTS, allow_null=True)
    time_zone = serializers.CharField(help_text="The project's: where days and months begin.")
    summed_until = serializers.DateTimeField(
        allow_null=True, help_text="Calls that ended later may not be in the sums yet."
    )
    total = UsageSerializer()
    results = UsageRowSerializer(many=True, help_text="Oldest first; buckets without calls are left out.")


class BudgetAlertSerializer(serializers.Serializer[Any]):
    threshold = serializers.IntegerField(help_text="Per cent of the amount that were crossed.")
    created_at = serializers.DateTimeField()


class BalanceSerializer(serializers.Serializer[Any]):
    """A budget that calls of yours fall under, as its present period stands. Money is US dollars as text."""

    id = serializers.UUIDField()
    scope = serializers.ChoiceField(choices=("project", "key"))
    key = serializers.CharField(allow_null=True, help_text="The key's name, where it is a key's.")
    per_end_user = serializers.BooleanField(help_text="Each end user has this amount for themselves.")
    end_user = serializers.CharField(
        allow_null=True, help_text="Whose share this is; null: everybody's, or nobody was named."
    )
    amount = serializers.CharField()
    spent = serializers.CharField(help_text="What ended calls cost.")
    held = serializers.CharField(help_text="What running calls may cost at most.")
    left = serializers.CharField(help_text="Never below 0.")
    hard = serializers.BooleanField(help_text="Calls that could exceed it are refused; else it only alerts.")
    period = serializers.ChoiceField(choices=("day", "week", "month", "total"))
    starts_at = serializers.DateTimeField()
    resets_at = serializers.DateTimeField(allow_null=True, help_text="null: never.")
    alerts = BudgetAlertSerializer(many=True, help_text="Of this period, by threshold.")


class BudgetQuerySerializer(StrictSerializer):
    user = serializers.CharField(
        required=False,
        max_length=200,
        help_text="An end user: also what is left to them of budgets per end user.",
    )


class BalancesSerializer(serializers.Serializer[Any]):
    results = BalanceSerializer(many=True)


def usage_body(row: UsageRow) -> JSON:
    """Sums as UsageSerializer documents them, and what they are of as UsageRowSerializer does."""
    sums = {name: getattr(row, name) for name in COLUMNS if name not in ("start", "cost", "saved")}
    start = row.bucket.isoformat() if row.bucket else None
    money = {"cost": row.cost_nano_usd, "saved": row.saved_nano_usd}
    return {"start": start, **sums, **{name: dollars(pricing.usd(nano)) for name, nano in money.items()}}


def usage_csv(rows: Iterable[UsageRow]) -> str:
    """The rows as CSV (RFC 4180). Texts are callers' own, so none may become a formula in a spreadsheet."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for row in rows:
        body = usage_body(row)
        writer.writerow(body | {name: harmless(body[name]) for name in ("group", "label")})
    return out.getvalue()


def harmless(text: str) -> str:
    """A cell that spreadsheets show and do not calculate."""
    return f"'{text}" if text.startswith(FORMULA) else text
