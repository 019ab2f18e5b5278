"""The page at '/': where a newcomer goes next, and for staff how the hub is doing; and where to sign in.

Besides, what those are told who come to a door the wrong way.
"""

from typing import Any

from axes.helpers import get_cool_off
from django.conf import settings
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.timesince import timesince
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from completions import first_steps
from completions.exceptions import error_body
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


class SignIn(LoginView):
    """For everybody who has an account; the admin's own form lets staff alone in."""

    template_name = "sign_in.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = super().dispatch(request, *args, **kwargs)
        answer["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return answer


def locked_out(request: HttpRequest, *_: Any) -> HttpResponse:
    """Too many wrong passwords, at the sign-in page or the admin's: in place of its answer (see axes)."""
    cool_off, now = get_cool_off(request), timezone.now()
    context = {
        "wait": cool_off and timesince(now - cool_off, now, depth=2),
        "back": request.get_full_path(),
    }
    status: int = settings.AXES_HTTP_RESPONSE_CODE
    answer = render(request, "locked_out.html", context, status=status)
    answer["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    answer["Cache-Control"] = "private, no-store"
    return answer


@csrf_exempt
def upgrade_required(request: HttpRequest) -> HttpResponse:
    """The websocket's address, asked for by plain HTTP."""
    message = "This is a websocket: connect to it with ws:// or wss://. docs/streaming.md says how."
    body = error_body(426, message, "UPGRADE_REQUIRED")
    return JsonResponse(body, status=426, headers={"Upgrade": "websocket"})


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
