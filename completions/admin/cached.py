"""Cached responses: what the cache holds, as it is; pinned, asked anew and purged here, never edited."""

import re
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timesince import timesince, timeuntil
from unfold.enums import ActionVariant

from completions import first_steps, renewal
from completions.admin import cached_page, cached_purge
from completions.admin.amounts import sum_dollars, to_the_second
from completions.admin.cached_filters import (
    OPERATIONS,
    ModelFilter,
    OperationFilter,
    ProviderFilter,
    StandingFilter,
    standing_badge,
)
from completions.cache import keeping
from completions.cache.purge import Selection, purge
from completions.errors import LLMServiceError
from completions.models import CachedResponse, CacheScope, Completion
from completions.wording import counted
from providers.admin.base import InfinitePaginator, ShownModelAdmin, detail_action
from providers.admin.language_models import dollars

MOST_CHOSEN = 1000  # answers at once; the purge page has no such bound
WORDS_SHOWN = 90  # characters of the question in the list
LARGE = ("request", "response", "facts", "vector")  # columns that a list does without
KEY = re.compile(r"[0-9a-f]{6,64}")


def may_read(request: HttpRequest) -> bool:
    """What people wrote has a permission of its own."""
    return bool(request.user.has_perm("completions.view_completioncontent"))


@admin.register(CachedResponse)
class CachedResponseAdmin(ShownModelAdmin):
    list_display = ("question", "named", "project", "standing", "hit_count", "saved", "age", "ends", "size")
    list_filter = (StandingFilter, "project", ModelFilter, ProviderFilter, OperationFilter)
    list_select_related = ("project",)
    list_fullwidth = True
    show_full_result_count = False
    paginator = InfinitePaginator
    sortable_by = ()
    search_fields = ("key",)
    search_help_text = "First words of the question, or the beginning of a key"
    actions = ("purge_selected", "pin_selected", "unpin_selected")
    actions_list = ("purge_some",)
    actions_detail = ("refresh", "pin", "unpin", "purge_this")
    change_form_outer_before_template = "admin/completions/cachedresponse/tiles.html"
    change_form_outer_after_template = "admin/completions/cachedresponse/below.html"
    fieldsets = (
        (
            None,
            {
                "fields": [
                    ("standing", "kind"),
                    ("model", "answered_by"),
                    ("project", "shared_by"),
                    ("stored", "until"),
                    ("brought_by", "size"),
                    "whole_key",
                ]
            },
        ),
    )

    class Media:
        css: ClassVar = {"all": ("completions/ledger.css",)}
        js = ("providers/post_actions.js",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CachedResponse]:
        rows: QuerySet[CachedResponse] = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "completions_cachedresponse_changelist":
            rows = rows.defer(*LARGE)
        return rows

    def get_urls(self) -> list[URLPattern]:
        purge_page = self.admin_site.admin_view(cached_purge.page)
        return [path("purge/", purge_page, name="completions_cache_purge"), *super().get_urls()]

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        first = "question" if may_read(request) else "short_key"
        return (first, *self.list_display[1:])

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = CachedResponse.objects.filter(pk=object_id).only("pinned").first()
        hidden = "pin" if row is not None and row.pinned else "unpin"
        return [one for one in super().get_actions_detail(request, object_id) if one.path != hidden]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[CachedResponse], search_term: str
    ) -> tuple[QuerySet[CachedResponse], bool]:
        """A key by how it begins, found by its index; else words, for those who may read them."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if KEY.fullmatch(term.lower()):
            by_key = queryset.filter(key__gte=term.lower(), key__lt=f"{term.lower()}g")  # after f comes g
            if by_key.exists():
                return by_key, False
        return (queryset.filter(first_words__icontains=term) if may_read(request) else queryset.none()), False

    def below(self, request: HttpRequest, row: CachedResponse) -> dict[str, Any]:
        return cached_page.below(request, row)

    # --- who may what: a row is never deleted alone, for its answer would still be given; it is purged

    def has_keep_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("completions.change_cachedresponse"))

    def has_purge_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("completions.delete_cachedresponse"))

    # --- what can be done

    @detail_action("Ask again", icon="refresh", permission="keep", attrs={"data-post": "Asking …"})
    def refresh(self, request: HttpRequest, object_id: str) -> HttpResponse:
        question = "Ask the upstream again, and keep its answer in place of this one? The project pays."
        return self.ask_or_run(request, object_id, question, lambda row: self._refreshed(request, row))

    def _refreshed(self, request: HttpRequest, row: CachedResponse) -> tuple[int, str]:
        try:
            answered = renewal.renew(row).metadata
        except CachedResponse.DoesNotExist:
            return messages.WARNING, "The answer was purged meanwhile."
        except LLMServiceError as error:
            return messages.ERROR, f"No fresh answer: {error}"
        self.log_change(request, row, "Asked again.")
        cost = "Its price is not known." if answered.cost is None else f"It cost {dollars(answered.cost)}."
        return messages.SUCCESS, f"A fresh answer is kept. {cost}"

    @detail_action("Pin", icon="keep", permission="keep", attrs={"data-post": "Pinning …"})
    def pin(self, request: HttpRequest, object_id: str) -> HttpResponse:
        question = "Pin this answer? It stays, and stays fresh, until it is unpinned or purged."
        return self.ask_or_run(request, object_id, question, lambda row: self._kept(request, row, keep=True))

    @detail_action("Unpin", icon="keep_off", permission="keep", attrs={"data-post": "Unpinning …"})
    def unpin(self, request: HttpRequest, object_id: str) -> HttpResponse:
        question = "Unpin this answer? It ends when its time is over; at once, if it is."
        return self.ask_or_run(request, object_id, question, lambda row: self._kept(request, row, keep=False))

    def _kept(self, request: HttpRequest, row: CachedResponse, *, keep: bool) -> tuple[int, str]:
        try:
            (keeping.pin if keep else keeping.unpin)(row)
        except LLMServiceError as error:
            return messages.ERROR, str(error)
        self.log_change(request, row, "Pinned." if keep else "Unpinned.")
        return messages.SUCCESS, (
            "Pinned: it stays, and stays fresh, until it is unpinned or purged." if keep else "Unpinned."
        )

    @detail_action("Purge", icon="delete", permission="purge", variant=ActionVariant.DANGER)
    def purge_this(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404(f"There is no cached response {object_id}.")
        if request.method != "POST":
            question = "Purge this answer? No process gives it from then on; the next equal call asks anew."
            return TemplateResponse(
                request, "admin/ask_before_action.html", self.asking(request, row, question)
            )
        return self._purged(request, [row.pk])

    @admin.action(description="Purge selected answers", permissions=["purge"])
    def purge_selected(self, request: HttpRequest, chosen: QuerySet[CachedResponse]) -> HttpResponse | None:
        ids = self._chosen(request, chosen)
        if ids and request.POST.get("confirmed") == "yes":
            return self._purged(request, ids)
        if not ids:
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": "Purge cached answers",
            "opts": self.opts,
            "ids": ids,
        }
        return TemplateResponse(request, "admin/completions/cachedresponse/purge_selected.html", context)

    def _purged(self, request: HttpRequest, ids: list[int]) -> HttpResponse:
        rows = list(CachedResponse.objects.filter(pk__in=ids).defer(*LARGE))
        back = HttpResponseRedirect(reverse("admin:completions_cachedresponse_changelist"))
        try:
            count = purge(Selection(rows=tuple(ids)))
        except LLMServiceError as error:
            messages.error(request, str(error))
            return back
        LogEntry.objects.log_actions(request.user.pk or 0, rows, DELETION, "Purged.")
        messages.success(request, f"Purged {counted(count, 'cached answer')}.")
        return back

    @admin.action(description="Pin selected answers", permissions=["keep"])
    def pin_selected(self, request: HttpRequest, chosen: QuerySet[CachedResponse]) -> None:
        self._keep_all(request, chosen, keep=True)

    @admin.action(description="Unpin selected answers", permissions=["keep"])
    def unpin_selected(self, request: HttpRequest, chosen: QuerySet[CachedResponse]) -> None:
        self._keep_all(request, chosen, keep=False)

    def _keep_all(self, request: HttpRequest, chosen: QuerySet[CachedResponse], *, keep: bool) -> None:
        done, problems = 0, set()
        for row in CachedResponse.objects.filter(pk__in=self._chosen(request, chosen)):
            level, text = self._kept(request, row, keep=keep)
            done += level == messages.SUCCESS
            problems |= {text} if level == messages.ERROR else set()
        word = "Pinned" if keep else "Unpinned"
        if done:
            messages.success(request, f"{word} {counted(done, 'answer')}.")
        for problem in sorted(problems):
            messages.warning(request, problem)

    def _chosen(self, request: HttpRequest, chosen: QuerySet[CachedResponse]) -> list[int]:
        ids = list(chosen.order_by().values_list("pk", flat=True)[: MOST_CHOSEN + 1])
        if len(ids) <= MOST_CHOSEN:
            return ids
        messages.warning(
            request,
            f"More than {MOST_CHOSEN:,} answers: choose fewer, or purge by project, model or provider.",
        )
        return []

    @detail_action("Purge …", icon="delete_sweep", permission="purge", variant=ActionVariant.DANGER)
    def purge_some(self, request: HttpRequest) -> HttpResponse:
        """On the list: the page where many are chosen by what they have in common."""
        return HttpResponseRedirect(reverse("admin:completions_cache_purge"))

    # --- what is shown

    @admin.display(description="Question")
    def question(self, row: CachedResponse) -> str:
        words = Truncator(row.first_words).chars(WORDS_SHOWN)
        return words or f"Not kept ({row.key[:12]})"

    @admin.display(description="Key")
    def short_key(self, row: CachedResponse) -> str:
        return row.key[:12]

    @admin.display(description="Key")
    def whole_key(self, row: CachedResponse) -> SafeString:
        return render_to_string("admin/completions/cachedresponse/key.html", {"row": row})

    @admin.display(description="Model")
    def named(self, row: CachedResponse) -> SafeString:
        return render_to_string("admin/completions/cachedresponse/model.html", {"row": row})

    @admin.display(description="State")
    def standing(self, row: CachedResponse) -> SafeString:
        return standing_badge(row)

    @admin.display(description="Hits")
    def hit_count(self, row: CachedResponse) -> str:
        return f"{row.hits:,}"

    @admin.display(description="Saved")
    def saved(self, row: CachedResponse) -> str:
        return sum_dollars(row.saved_nano_usd)

    @admin.display(description="Age")
    def age(self, row: CachedResponse) -> str:
        return timesince(row.created_at, depth=1)

    @admin.display(description="Expires")
    def ends(self, row: CachedResponse) -> str:
        if row.pinned:
            return "never"
        if row.expires_at <= timezone.now():
            return first_steps.ago(row.expires_at)
        return f"in {timeuntil(row.expires_at, depth=1)}"

    @admin.display(description="Size")
    def size(self, row: CachedResponse) -> str:
        return filesizeformat(row.size_bytes)

    @admin.display(description="Kind")
    def kind(self, row: CachedResponse) -> str:
        kinds = {kind.value: name for kind, name in OPERATIONS.items()}
        return kinds.get(row.operation, row.operation)

    @admin.display(description="Answered by")
    def answered_by(self, row: CachedResponse) -> str:
        return f"{row.upstream_model} at {row.provider_slug}"

    @admin.display(description="Given to")
    def shared_by(self, row: CachedResponse) -> str:
        project = row.project
        if project.cache_scope == CacheScope.KEY:
            return f"The key {row.api_key} alone" if row.api_key else "The member who asked alone"
        return f"Projects of the group {project.cache_group}" if project.cache_group else "The whole project"

    @admin.display(description="Stored")
    def stored(self, row: CachedResponse) -> str:
        return to_the_second(row.created_at)

    @admin.display(description="Expires")
    def until(self, row: CachedResponse) -> str:
        if row.pinned:
            return "Never, while it is pinned"
        stale = f", stale until {to_the_second(row.stale_until)}" if row.stale_until > row.expires_at else ""
        return f"{to_the_second(row.expires_at)}{stale}"

    @admin.display(description="Brought by")
    def brought_by(self, row: CachedResponse) -> SafeString:
        call = Completion.objects.filter(pk=row.completion_id).first() if row.completion_id else None
        return render_to_string(
            "admin/completions/cachedresponse/brought_by.html", {"row": row, "call": call}
        )
