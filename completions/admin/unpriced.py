"""Calls that wait for a price: by provider and model, with the way to give them one."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from completions import repricing
from completions.admin.amounts import exact_dollars, to_the_second
from completions.errors import LLMServiceError
from completions.repricing import Period, Repricing, Unpriced
from completions.wording import counted

AT_ONCE = 2000  # calls priced by one click, within seconds; the rest by the next, or by manage.py reprice


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """The queue; a POST prices what has a price by now."""
    if not request.user.has_perm("completions.view_completion"):
        raise PermissionDenied
    if request.method == "POST":
        return _price(request)
    queue = repricing.queue()
    context = {
        **admin.site.each_context(request),
        "title": "Waiting for a price",
        "lines": [_line(request, waiting) for waiting in queue],
        "calls": sum(waiting.calls for waiting in queue),
        "may_price": _may_price(request) and any(waiting.price_known for waiting in queue),
        "at_once": AT_ONCE,
    }
    return TemplateResponse(request, "admin/completions/completion/unpriced.html", context)


def _may_price(request: HttpRequest) -> bool:
    return bool(request.user.has_perm("completions.add_adjustment"))


def _price(request: HttpRequest) -> HttpResponse:
    if not _may_price(request):
        raise PermissionDenied
    left = AT_ONCE
    changed = added = 0
    try:
        for waiting in repricing.queue():
            if not waiting.price_known or left <= 0:
                continue
            period = Period(
                waiting.since, provider=waiting.provider, upstream_model=waiting.model, unpriced_only=True
            )
            totals = Repricing(period).run(left)
            left -= sum(total.rows for total in totals)
            changed += sum(total.changed for total in totals)
            added += sum(total.new_nano - total.old_nano for total in totals)
    except LLMServiceError as error:
        messages.error(request, str(error))
    messages.success(request, f"Priced {counted(changed, 'call')}: {exact_dollars(added)}.")
    return HttpResponseRedirect(reverse("admin:completions_unpriced"))


def _line(request: HttpRequest, waiting: Unpriced) -> dict[str, Any]:
    model = waiting.language_model
    add = ""
    if model is not None and request.user.has_perm("providers.add_modelprice"):
        query = urlencode({"model": model.pk, "valid_from": waiting.since.date().isoformat()})
        add = f"{reverse('admin:providers_modelprice_add')}?{query}"
    return {
        "row": waiting,
        "since": to_the_second(waiting.since),
        "prompt": f"{waiting.prompt_tokens:,}",
        "completion": f"{waiting.completion_tokens:,}",
        "calls": f"{waiting.calls:,}",
        "add": add,
    }
