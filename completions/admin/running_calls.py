"""The page of the calls that run now, which keeps itself up to date where scripts run. See `underway`."""

import uuid
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from completions import underway
from completions.models import Completion, State
from completions.underway import Underway
from providers.admin.base import badge

END_SECONDS = 2.0  # that a call may take to end before staff are told that it has not

SURFACES = {"v1": "/v1", "api": "/api", "ws": "Websocket", "python": "Python"}


@require_safe
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """All of it."""
    return _answer(request, "admin/completions/completion/running.html", admin.site.each_context(request))


@require_safe
@never_cache
def rows(request: HttpRequest) -> HttpResponse:
    """What changes: the page's script asks for it every two seconds."""
    return _answer(request, "admin/completions/completion/running_rows.html", {})


@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, call_id: uuid.UUID) -> HttpResponse:
    """A GET asks, a POST does it; a script that accepts JSON is told in JSON."""
    if not _may_cancel(request):
        raise PermissionDenied
    call = get_object_or_404(Completion.objects.select_related("project"), pk=call_id)
    back = reverse("admin:completions_running")
    if request.method != "POST":
        context = {
            **admin.site.each_context(request),
            "title": "End this call? What came of its answer is billed; its caller gets an error.",
            "original": name_of(call),
            "back": back,
        }
        return TemplateResponse(request, "admin/ask_before_action.html", context)
    level, text = _end(request, call)
    if request.headers.get("Accept") == "application/json":
        return JsonResponse({"told": text})
    messages.add_message(request, level, text)
    return HttpResponseRedirect(back)


def name_of(call: Completion) -> str:
    return f"{call.requested_model or call.model} for {call.project}"


def _answer(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    if not request.user.has_perm("completions.view_completion"):
        raise PermissionDenied
    calls = underway.calls()
    more = len(calls) == underway.MOST
    return TemplateResponse(
        request,
        template,
        {
            **context,
            "title": "Running now",
            "lines": [_line(call) for call in calls],
            "count": underway.count() if more else len(calls),
            "most": underway.MOST if more else 0,
            "may_cancel": _may_cancel(request),
        },
    )


def _may_cancel(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("completions.change_completion"))


def _end(request: HttpRequest, call: Completion) -> tuple[int, str]:
    if call.state != State.RUNNING:
        return messages.INFO, f"{name_of(call)} had ended already."
    underway.cancel(call.pk)
    LogEntry.objects.log_actions(request.user.pk or 0, [call], CHANGE, "Cancelled while it ran.")
    if underway.has_ended(call.pk, END_SECONDS):
        return messages.SUCCESS, f"{name_of(call)} was cancelled."
    return messages.WARNING, (
        f"{name_of(call)} was told to end, but has not yet. Its process may not serve requests, or Redis may "
        "be away."
    )


def _line(call: Underway) -> dict[str, Any]:
    row = call.row
    return {
        "row": row,
        "name": name_of(row),
        "age": _age((timezone.now() - row.created_at).total_seconds()),
        "who": row.api_key or row.user or "No key",
        "how": f"{SURFACES.get(row.surface, row.surface)}, {'streamed' if row.stream else 'in one piece'}",
        "state": _state(call),
        "tokens": f"≈ {call.tokens:,}" if call.tokens else "-",
        "can_end": not call.lost,
    }


def _state(call: Underway) -> SafeString:
    if call.lost:
        return badge("danger", "Process gone")
    return badge("success", "Answering") if call.tokens else badge("info", "Waiting")


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
