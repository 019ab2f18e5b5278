"""What a new hub still lacks before the first answer comes back, and how it is doing since."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Q, Sum
from django.urls import reverse
from django.utils import timezone
from django.utils.timesince import timesince

from completions.ids import first_id
from completions.models import ApiKey, Completion, State
from providers.models import Health, LLMProvider
from providers.types import ProviderType

COUNTED_ROWS = 50_000  # the newest calls of a day that are added up: what a page may cost has an end
KEPT_SECONDS = 15
NOT_FAILED = (
    State.OK, State.COALESCED, State.RUNNING, State.CANCELLED, State.CLIENT_GONE, State.CLIENT_SLOW,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, where to do it, and whether it is done."""

    title: str
    text: str
    done: bool
    url: str
    link: str


@dataclass(frozen=True, slots=True)
class Day:
    """The last 24 hours. `more`: there were more calls than are added up, so every figure is 'at least'."""

    calls: int
    failed: int
    tokens: int
    cost_nano_usd: int
    saved_nano_usd: int
    unpriced: int
    more: bool


def steps(*, look: bool = True) -> list[Step]:
    """Provider, key, first call: each with the page where it is done. `look=False` reads nothing."""
    types = _provider_types() if look else set()
    only_demo = types == {ProviderType.DEMO}
    return [
        Step(
            "Add a provider",
            "The demo provider answers without any network. Add a real one when you are ready."
            if only_demo
            else "Choose a vendor, paste your key, name the models callers may use, and test the connection.",
            bool(types),
            reverse("admin:providers_llmprovider_add"),
            "Add a real provider" if only_demo else "Add a provider",
        ),
        Step(
            "Make an API key",
            "A key belongs to a project, which pays for its calls. It is shown once.",
            look and live_keys().exists(),
            reverse("admin:completions_apikey_add"),
            "Make a key",
        ),
        Step(
            "Make the first call",
            "In the playground, or with your key. It appears in the admin with its tokens, time and cost.",
            look and Completion.objects.filter(state=State.OK).order_by().exists(),
            reverse("playground"),
            "Open the playground",
        ),
    ]


def ago(moment: datetime | None) -> str:
    """How long since, in one unit."""
    if moment is None:
        return "never"
    if timezone.now() - moment < timedelta(minutes=1):
        return "just now"
    return f"{timesince(moment, depth=1)} ago"


def _provider_types() -> set[str]:
    return set(LLMProvider.objects.enabled().filter(models__enabled=True).values_list("type", flat=True))


def live_keys() -> Any:
    """Keys that are accepted now."""
    usable = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    return ApiKey.objects.filter(usable, revoked_at=None, project__enabled=True)


def providers_by_health() -> dict[str, int]:
    """How many enabled providers are in each state of health."""
    counts = LLMProvider.objects.enabled().order_by().values_list("health").annotate(Count("pk"))
    return dict.fromkeys(Health.values, 0) | dict(counts)


def last_day() -> Day:
    """The last 24 hours, at most KEPT_SECONDS old."""
    kept: Day | None = cache.get("last-day")
    if kept is None:
        kept = _add_up(timezone.now() - timedelta(days=1))
        cache.set("last-day", kept, KEPT_SECONDS)
    return kept


def _add_up(since: datetime) -> Day:
    newest = Completion.objects.filter(id__gte=first_id(since)).order_by("-id")[: COUNTED_ROWS + 1]
    unpriced = Q(cost_nano_usd=None, prompt_tokens__isnull=False)
    sums = newest.aggregate(
        calls=Count("pk"),
        failed=Count("pk", filter=~Q(state__in=NOT_FAILED)),
        prompt=Sum("prompt_tokens"),
        completion=Sum("completion_tokens"),
        cost=Sum("cost_nano_usd"),
        saved=Sum("saved_nano_usd"),
        unpriced=Count("pk", filter=unpriced),
    )
    return Day(
        calls=min(sums["calls"], COUNTED_ROWS),
        failed=sums["failed"],
        tokens=(sums["prompt"] or 0) + (sums["completion"] or 0),
        cost_nano_usd=sums["cost"] or 0,
        saved_nano_usd=sums["saved"] or 0,
        unpriced=sums["unpriced"],
        more=sums["calls"] > COUNTED_ROWS,
    )
