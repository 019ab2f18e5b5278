"""“Why was this a miss?”: two calls beside one another, and which parts made their cache keys differ."""

import uuid
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.views.decorators.http import require_safe

from completions.admin.amounts import state_badge, to_the_second
from completions.admin.caching import cache_badge
from completions.cache import compare
from completions.cache.retold import Retold, likest_earlier, retold, story_of
from completions.models import SPARED, CacheScope, Completion

NAMES = {"shared by": "Shared by", "operation": "Kind", "provider": "Provider", "model": "Model"}


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """`?a=…&b=…`: ids of two calls. Without `b`, the earlier call that is most like `a`."""
    if not request.user.has_perm("completions.view_completion"):
        raise PermissionDenied
    asked = {name: request.GET.get(name, "").strip() for name in ("a", "b")}
    first, second = _call(asked["a"]), _call(asked["b"])
    context = {
        **admin.site.each_context(request),
        "title": "Compare two calls",
        "asked": asked,
        "may_read": request.user.has_perm("completions.view_completioncontent"),
    }
    if first is not None and not asked["b"]:
        second = likest_earlier(first)
        context["chosen"] = second is not None
    context["problem"] = _problem(asked, first, second)
    if first is not None and second is not None and first != second:
        earlier, later = sorted((first, second), key=lambda call: call.pk)
        context |= {"asked": {"a": str(later.pk), "b": str(earlier.pk)}}
        context |= _compared(earlier, later, may_read=context["may_read"])
    return TemplateResponse(request, "admin/completions/completion/compare.html", context)


def _call(text: str) -> Completion | None:
    try:
        found = Completion.objects.filter(pk=uuid.UUID(text))
    except ValueError:
        return None
    return found.select_related("project", "api_key").first()


def _problem(asked: dict[str, str], first: Completion | None, second: Completion | None) -> str:
    for name, call in (("a", first), ("b", second)):
        if asked[name] and call is None:
            return f"There is no call {asked[name]}."
    if first is not None and first == second:
        return "These are one and the same call."
    if first is not None and second is None:
        return "There is no earlier call of this project and model to compare with. Give another call's id."
    return ""


def _compared(earlier: Completion, later: Completion, *, may_read: bool) -> dict[str, Any]:
    one, other = (_retold(call, may_read=may_read) for call in (earlier, later))
    found = compare.differences(one.request, other.request)
    whole = one.request.asked is not None and other.request.asked is not None
    if not whole:  # what only one of them says differs in nothing
        found = [each for each in found if each.name in NAMES]
    same = [name for name in compare.same(one.request, other.request) if whole or name in NAMES]
    return {
        "sides": [_side("Earlier", one), _side("Later", other)],
        "differences": [_line(each, one, other) for each in found],
        "same": ", ".join(NAMES.get(name, name).lower() if name in NAMES else name for name in same),
        "whole": whole,
        "reasons": compare.reasons(story_of(one, other)) if not found else [],
        "was_hit": later.cache in SPARED,
        "one_key": one.key if one.key is not None and one.key == other.key else None,
        "gone": [side.call for side in (one, other) if side.target is None],
        "changes": any(each.changes for each in found),
    }


def _retold(call: Completion, *, may_read: bool) -> Retold:
    found = retold(call)
    return found if may_read else found._replace(request=found.request._replace(asked=None), key=None)


def _side(title: str, told: Retold) -> dict[str, Any]:
    call = told.call
    return {
        "title": title,
        "call": call,
        "when": to_the_second(call.created_at),
        "state": state_badge(call),
        "cache": cache_badge(call),
        "key": told.key,
        "content": told.request.asked is not None,
    }


def _line(each: compare.Difference, one: Retold, other: Retold) -> dict[str, Any]:
    if each.name == "shared by":
        shown = [compare.Shown("", _shared_by(side.call), "") for side in (one, other)]
    else:
        shown = [each.one, each.other]
    at = each.at if each.at != each.name else ""
    return {"name": NAMES.get(each.name, each.name), "at": at, "shown": shown}


def _shared_by(call: Completion) -> str:
    project = call.project
    if project.cache_scope == CacheScope.KEY:
        return f"{project}: {call.api_key or call.user or 'nobody else'}"
    return f"group {project.cache_group}" if project.cache_group else str(project)
