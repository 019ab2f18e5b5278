"""The base class of every admin page of the hub, and the few displays they share. HTML lives in templates."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.utils import unquote
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold import decorators, paginator
from unfold.admin import ModelAdmin, TabularInline

View = TypeVar("View", bound=Callable[..., HttpResponse])
NEWEST_ROWS = 100_000  # how far back a huge list can be paged through; filters and search reach further


def detail_action(description: str, *, icon: str, permission: str, **options: Any) -> Callable[[View], View]:
    """A button on a row's page; `permission` names the page's has_<permission>_permission."""
    made: Callable[[View], View] = decorators.action(
        description=description, icon=icon, permissions=[permission], **options
    )
    return made


class HubModelAdmin(ModelAdmin):  # type: ignore[misc] # unfold has no stubs
    """What every page has in common: the look, quiet lists, and actions that need a POST."""

    list_per_page = 50
    warn_unsaved_form = True
    show_facets = ShowFacets.NEVER  # a count for every choice of every filter costs more than it tells

    def ask_or_run(
        self, request: HttpRequest, object_id: str, question: str, run: Callable[[Any], tuple[int, str]]
    ) -> HttpResponse:
        """A detail action that changes something: a GET only asks, a POST runs it and says what happened.

        `run` gets the row and returns a message level and a text for it.
        """
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id}.")
        if request.method != "POST":
            return TemplateResponse(
                request, "admin/ask_before_action.html", self.asking(request, row, question)
            )
        level, text = run(row)
        messages.add_message(request, level, text)
        return HttpResponseRedirect(self.change_url(row))

    def asking(self, request: HttpRequest, row: Model, question: str) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": question,
            "opts": self.opts,
            "original": row,
            "back": self.change_url(row),
        }

    def change_url(self, row: Model) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])


class ShownModelAdmin(HubModelAdmin):
    """Rows that are only shown, each with what `below` finds for the templates under its fields."""

    def below(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        return {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        row = self.get_object(request, object_id) if object_id and self.has_view_permission(request) else None
        context = {**(extra_context or {}), **(self.below(request, row) if row else {})}
        answer: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        return answer

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(TabularInline):  # type: ignore[misc] # unfold has no stubs
    """Rows that are only shown; each links to its own page."""

    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class InfinitePaginator(paginator.InfinitePaginator):  # type: ignore[misc] # unfold has no stubs
    """Pages through the newest rows of a huge table without ever counting it.

    The bound keeps a made-up page number from scanning the whole table. unfold's templates know its name.
    """

    @cached_property
    def count(self) -> int:
        return NEWEST_ROWS


def badge(kind: str, text: str, note: str = "") -> SafeString:
    """A coloured word (`kind`: success, info, warning, danger or '') and, beside it, a quiet note."""
    return render_to_string("admin/badge.html", {"kind": kind, "text": text, "note": note})
