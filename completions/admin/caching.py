"""How the pages of calls show what the cache did for them."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from completions.admin.amounts import exact_dollars
from completions.models import SPARED, CachedResponse, Completion
from providers.admin.base import badge

KINDS = {"HIT": "success", "STALE": "warning", "SEMANTIC": "info", "COALESCED": "info", "PARTIAL": "info"}
MEANINGS = {
    "HIT": "answered from the cache",
    "STALE": "answered from the cache past its time, while a fresh answer was fetched",
    "SEMANTIC": "answered with the answer to another question that means the same",
    "COALESCED": "answered with an equal call that was under way",
    "PARTIAL": "some of its inputs were answered from the cache",
    "MISS": "nothing was cached, so the upstream was asked",
    "": "the cache was not asked",
}


def cache_badge(call: Completion) -> SafeString | str:
    """What the cache did for a call, in a word, and what that saved."""
    if not call.cache:
        return "-"
    word = badge(KINDS.get(call.cache, ""), call.cache)
    saved = exact_dollars(call.saved_nano_usd) if call.saved_nano_usd else ""
    return render_to_string("admin/completions/completion/cached.html", {"badge": word, "saved": saved})


def told(call: Completion) -> SafeString:
    """The same in words, with the ways to the answer, to who brought it, and to why it was a miss."""
    meaning = MEANINGS.get(call.cache, "")
    return render_to_string(
        "admin/completions/completion/cache.html",
        {
            "badge": badge(KINDS.get(call.cache, ""), call.cache) if call.cache else "",
            "meaning": meaning if call.cache else meaning.capitalize(),
            "call": call,
            "answer": CachedResponse.objects.filter(completion_id=call.cached_from or call.pk).first(),
            "missed": call.cache not in SPARED,
        },
    )


class CacheFilter(admin.SimpleListFilter):
    title = "cache"
    parameter_name = "cache"
    NOT_ASKED: ClassVar = "none"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        words = [(word, word) for word in MEANINGS if word]
        return [("any", "Answered by it"), *words, (self.NOT_ASKED, "Not asked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Completion]) -> QuerySet[Completion]:
        word = self.value()
        if word is None:
            return queryset
        if word == "any":
            return queryset.filter(cache__in=SPARED)
        return queryset.filter(cache="" if word == self.NOT_ASKED else word)
