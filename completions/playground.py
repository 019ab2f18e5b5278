"""The page at /playground/, where people who are signed in try models. What it does is in its scripts."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from completions import keys
from completions.models import Project
from completions.pages import CONTENT_SECURITY_POLICY
from completions.requests import CONFIG_FIELDS
from completions.serializers import dollars
from completions.views import caller_of
from providers.registry import snapshot

MOST_PROJECTS = 500  # to choose from
EXACT = 2**53 - 1
NO_ID = "00000000-0000-0000-0000-000000000000"  # stands for a call's id in its address
# Parameter, its name for people, and the step of its slider.
SLIDERS = (("temperature", "Temperature", 0.05), ("top_p", "Top p", 0.05))
MORE_SLIDERS = (
    ("frequency_penalty", "Frequency penalty", 0.1),
    ("presence_penalty", "Presence penalty", 0.1),
)


@require_safe
@login_required
@ensure_csrf_cookie
def playground(request: HttpRequest) -> HttpResponse:
    """For anybody who is signed in: what they may call, and who pays, the API decides."""
    context = {
        "staff": request.user.is_staff,
        "sliders": [_parameter(*facts) for facts in SLIDERS],
        "more_sliders": [_parameter(*facts) for facts in MORE_SLIDERS],
        "max_tokens": _parameter("max_tokens", "Longest answer", 1),
        "seed": _parameter("seed", "Seed", 1),
        "facts": _facts(request.user),
    }
    answer = render(request, "playground.html", context)
    answer["Content-Security-Policy"] = _policy(request)
    answer["Cache-Control"] = "private, no-cache"
    return answer


@extend_schema(exclude=True)
@api_view(["GET"])
def prices(request: Request) -> Response:
    """Dollars for a million tokens of each model you may call, null where no price is known."""
    found = {
        f"{target.endpoint.provider}/{target.public_model}": target.price
        and {"prompt": dollars(target.price.prompt.base), "completion": dollars(target.price.completion.base)}
        for target in keys.permitted(snapshot().targets, caller_of(request).api_key_id)
    }
    return Response(found, headers={"Cache-Control": "private, no-cache"})


def _parameter(name: str, label: str, step: float) -> dict[str, Any]:
    """One of the API's parameters, with the bounds it has there, as far as a browser's numbers are exact."""
    field = CONFIG_FIELDS[name]
    low, high = max(field.schema["minimum"], -EXACT), min(field.schema["maximum"], EXACT)
    return {"name": name, "label": label, "meaning": field.meaning, "low": low, "high": high, "step": step}


def _facts(user: Any) -> dict[str, Any]:
    """What the scripts must know of the person."""
    call = reverse("admin:completions_completion_change", args=[NO_ID])
    return {
        "user": user.pk,
        "projects": _projects(user),
        "call_url": call if user.has_perm("completions.view_completion") else None,
        "add_provider_url": (
            reverse("admin:providers_llmprovider_add") if user.has_perm("providers.add_llmprovider") else None
        ),
        "sign_in_url": f"{reverse('sign-in')}?{urlencode({'next': reverse('playground')})}",
    }


def _projects(user: Any) -> list[dict[str, Any]]:
    """The projects that may pay, the person's own first; superusers may name any."""
    enabled = Project.objects.filter(enabled=True).order_by("slug")
    mine = list(enabled.filter(members=user)[:MOST_PROJECTS])
    others = enabled.exclude(members=user)[: MOST_PROJECTS - len(mine)] if user.is_superuser else ()
    return [
        {"slug": project.slug, "name": project.name, "mine": is_mine}
        for found, is_mine in ((mine, True), (others, False))
        for project in found
    ]


def _policy(request: HttpRequest) -> str:
    """Besides what every page has: the API, the websocket (which some browsers do not count as 'self')."""
    scheme = "wss" if request.is_secure() else "ws"
    return (
        f"{CONTENT_SECURITY_POLICY}; connect-src 'self' {scheme}://{request.get_host()}; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
