"""Purging cached answers by project, model or provider: chosen, counted, then confirmed."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from completions.admin.amounts import exact_dollars
from completions.cache.purge import Selection, purge
from completions.errors import LLMServiceError
from completions.models import CachedResponse, Project
from completions.wording import counted
from providers.models import LanguageModel, LLMProvider


class PurgeForm(forms.Form):
    """Everything that is chosen must fit. Nothing chosen must be meant."""

    project = forms.ModelChoiceField(
        queryset=Project.objects.order_by("slug"),
        to_field_name="slug",
        required=False,
        empty_label="Any project",
        widget=UnfoldAdminSelectWidget(),
    )
    model = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(
            attrs={"list": "known-models", "placeholder": "Any model", "autocomplete": "off"}
        ),
        help_text="As callers name it.",
    )
    provider = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget(
            attrs={"list": "known-providers", "placeholder": "Any provider", "autocomplete": "off"}
        ),
        help_text="Its short name.",
    )
    everything = forms.BooleanField(
        required=False,
        label="Everything",
        widget=UnfoldBooleanWidget(),
        help_text="Needed when nothing else is chosen.",
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        chosen = any(values.get(name) for name in ("project", "model", "provider"))
        if not chosen and not values.get("everything"):
            raise forms.ValidationError("Choose a project, a model or a provider; or everything.")
        if chosen and values.get("everything"):
            raise forms.ValidationError("Choose everything, or a part of it: not both.")
        return values

    def selection(self) -> Selection:
        values = self.cleaned_data
        project: Project | None = values["project"]
        return Selection(
            project_id=project.pk if project is not None else None,
            model=values["model"] or None,
            provider=values["provider"] or None,
        )

    def words(self) -> str:
        """What is chosen, for people."""
        values = self.cleaned_data
        parts = [f"{name} {values[name]}" for name in ("project", "model", "provider") if values[name]]
        return ", ".join(parts) or "everything"


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """A GET with a choice counts it; a POST purges it."""
    if not request.user.has_perm("completions.delete_cachedresponse"):
        raise PermissionDenied
    form = PurgeForm(request.POST if request.method == "POST" else request.GET or None)
    counted = None
    if form.is_valid():
        if request.method == "POST":
            return _purged(request, form)
        counted = _counted(form)
    context = {
        **admin.site.each_context(request),
        "title": "Purge cached answers",
        "form": form,
        "counted": counted,
        "models": LanguageModel.objects.order_by("public_name")
        .values_list("public_name", flat=True)
        .distinct(),
        "providers": LLMProvider.objects.order_by("slug").values_list("slug", flat=True),
    }
    return TemplateResponse(request, "admin/completions/cachedresponse/purge.html", context)


def _counted(form: PurgeForm) -> dict[str, Any]:
    rows = form.selection().queryset().order_by()
    sums = rows.aggregate(
        answers=Count("project_id"), size=Sum("size_bytes"), hits=Sum("hits"), saved=Sum("saved_nano_usd")
    )
    return {
        "words": form.words(),
        "answers": sums["answers"],
        "count": f"{sums['answers']:,}",
        "pinned": f"{rows.filter(pinned=True).count():,}",
        "size": filesizeformat(sums["size"] or 0),
        "hits": f"{sums['hits'] or 0:,}",
        "saved": exact_dollars(sums["saved"] or 0),
    }


def _purged(request: HttpRequest, form: PurgeForm) -> HttpResponse:
    try:
        count = purge(form.selection())
    except LLMServiceError as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:completions_cache_purge"))
    told = counted(count, "cached answer")
    LogEntry.objects.create(
        user_id=request.user.pk or 0,
        content_type=ContentType.objects.get_for_model(CachedResponse),
        object_repr=f"Cached answers: {form.words()}"[:200],
        action_flag=DELETION,
        change_message=f"Purged {told}.",
    )
    messages.success(request, f"Purged {told}: {form.words()}.")
    return HttpResponseRedirect(reverse("admin:completions_cachedresponse_changelist"))
