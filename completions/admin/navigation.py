"""The admin's sidebar: one line a page, shown to those who may open it."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

Group = tuple[str, tuple[tuple[str, str, str, str], ...]]

# Group, then title, icon, URL name or path, permission (empty: every member of staff).
GROUPS: tuple[Group, ...] = (
    ("", (("Dashboard", "dashboard", "admin:index", ""),)),
    (
        "What we can call",
        (
            ("Providers", "hub", "admin:providers_llmprovider_changelist", "providers.view_llmprovider"),
            (
                "Models",
                "neurology",
                "admin:providers_languagemodel_changelist",
                "providers.view_languagemodel",
            ),
            ("Prices", "payments", "admin:providers_modelprice_changelist", "providers.view_modelprice"),
        ),
    ),
    (
        "Who asks",
        (
            ("Projects", "folder", "admin:completions_project_changelist", "completions.view_project"),
            ("API keys", "key", "admin:completions_apikey_changelist", "completions.view_apikey"),
        ),
    ),
    (
        "What came back",
        (
            (
                "Completions",
                "receipt_long",
                "admin:completions_completion_changelist",
                "completions.view_completion",
            ),
        ),
    ),
    (
        "People",
        (
            ("Users", "person", "admin:auth_user_changelist", "auth.view_user"),
            ("Groups", "group", "admin:auth_group_changelist", "auth.view_group"),
        ),
    ),
    ("Help", (("Getting started", "rocket_launch", "/", ""), ("API reference", "api", "/api/docs/", ""))),
)


def _item(title: str, icon: str, target: str) -> dict[str, Any]:
    if target.startswith("/"):  # outside the admin, so never the current page
        return {"title": title, "icon": icon, "link": target, "active": False}
    return {"title": title, "icon": icon, "link": reverse(target)}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups with what this person may see, as unfold's SIDEBAR wants them."""
    shown = []
    for title, links in GROUPS:
        items = [
            _item(text, icon, name)
            for text, icon, name, permission in links
            if not permission or request.user.has_perm(permission)
        ]
        if items:
            shown.append({"title": title, "separator": False, "items": items})
    return shown
