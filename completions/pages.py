"""The page at '/': where a newcomer goes next, and for staff how the hub is doing."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from completions import first_steps
from completions.models import Completion
from providers.models import Health

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NEWEST_CALLS = 5


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Open to everybody; what it says about this hub is for staff alone."""
    staff = request.user.is_active and request.user.is_staff
    context = {
        "host": request.build_absolute_uri("/").rstrip("/"),
        "staff": staff,
        "steps": first_steps.steps(look=staff),
    }
    answer = render(request, "home.html", context | (_state(request) if staff else {}))
    answer["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    answer["Cache-Control"] = "private, no-cache"
    return answer


def _state(request: HttpRequest) -> dict[str, Any]:
    health = first_steps.providers_by_health()
    context: dict[str, Any] = {
        "providers": sum(health.values()),
        "healthy": health[Health.OK],
        "unhealthy": health[Health.AUTH_FAILED] + health[Health.FAILING],
        "keys": first_steps.live_keys().count(),
    }
    if request.user.has_perm("completions.view_completion"):
        newest = Completion.objects.order_by("-id")[:NEWEST_CALLS]
        context["calls"] = [{"row": call, "ago": first_steps.ago(call.created_at)} for call in newest]
    return context
