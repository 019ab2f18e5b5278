"""The admin's first page: the last day at a glance, providers' health, and what to do next."""

from typing import Any

from django.http import HttpRequest

from completions import first_steps, underway
from completions.admin.amounts import milliseconds, rounded_dollars, state_badge, sum_tile
from completions.admin.calls import cost_badge
from completions.models import Completion
from providers.admin.llm_providers import health_badge, key_badge
from providers.models import LLMProvider

CALLS_SHOWN = 8
PROVIDERS_SHOWN = 20


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """unfold's DASHBOARD_CALLBACK, for `templates/admin/index.html`: each part to those who may see it."""
    context["title"] = "Dashboard"
    if request.user.is_superuser:
        steps = first_steps.steps()
        context["steps"] = [] if all(step.done for step in steps) else steps
    if request.user.has_perm("providers.view_llmprovider"):
        context["providers"] = [_provider_line(row) for row in LLMProvider.objects.all()[:PROVIDERS_SHOWN]]
    if request.user.has_perm("completions.view_completion"):
        newest = (
            Completion.objects.select_related("project")
            .prefetch_related("adjustments")
            .order_by("-id")[:CALLS_SHOWN]
        )
        context["calls"] = [_call_line(row) for row in newest]
        context["day"] = day = first_steps.last_day()
        context["tiles"] = _tiles(day)
        context["running"] = underway.count()
    return context


def _tiles(day: first_steps.Day) -> list[dict[str, Any]]:
    return [
        {"name": "Calls", "value": f"{day.calls:,}"},
        {"name": "Failed", "value": f"{day.failed:,}", "bad": day.failed},
        {"name": "Tokens", "value": f"{day.tokens:,}"},
        sum_tile(
            "Spend",
            day.cost_nano_usd,
            url="admin:completions_spend",
            unpriced=day.unpriced,
            note=f"{rounded_dollars(day.saved_nano_usd)} saved by the cache" if day.saved_nano_usd else "",
        ),
    ]


def _provider_line(row: LLMProvider) -> dict[str, Any]:
    return {
        "row": row,
        "key": key_badge(row),
        "health": health_badge(row),
        "tested": first_steps.ago(row.checked_at),
    }


def _call_line(row: Completion) -> dict[str, Any]:
    return {
        "row": row,
        "ago": first_steps.ago(row.created_at),
        "state": state_badge(row),
        "cost": cost_badge(row),
        "latency": milliseconds(row.latency_ms),
    }
