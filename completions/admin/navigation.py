"""The admin's sidebar: one line a page, shown to those who may open it."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

Group = tuple[str, tuple[tuple[str, str, str, str], ...]]

# Group, then title, icon, URL name or path, permission (empty: every member of staff).
GROUPS: tuple[Group, ...] = (
    ("", (("Dashboard", "dashboard", "admin:index", ""), ("Playground", "forum", "playground", ""))),
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
            ("Budgets", "savings", "admin:completions_budget_changelist", "completions.view_budget"),
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
            ("Running now", "pending", "admin:completions_running", "completions.view_completion"),
            (
                "Cached responses",
                "cached",
                "admin:completions_cachedresponse_changelist",
                "completions.view_cachedresponse",
            ),
        ),
    ),
    (
        "What it cost",
        (
            ("Spend", "bar_chart", "admin:completions_spend", "completions.view_completion"),
            ("Waiting for a price", "money_off", "admin:completions_unpriced", "completions.view_completion"),
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
    return {"title": title, "icon": icon, "link": target if target.startswith("/") else reverse(target)}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups with what this person may see, as unfold's SIDEBAR wants them."""
    shown: list[dict[str, Any]] = []
    for title, links in GROUPS:
        items = [
            _item(text, icon, name)
            for text, icon, name, permission in links
            if not permission or request.user.has_perm(permission)
        ]
        if items:
            shown.append({"title": title, "separator": False, "items": items})
    current = _current(request.path, [item["link"] for group in shown for item in group["items"]])
    for group in shown:
        for item in group["items"]:
            item["active"] = item["link"] == current
    return shown


def _current(path: str, links: list[str]) -> str:
    """The page that is open, or the list it belongs to: of all links above it the nearest."""
    tops = ("/", reverse("admin:index"))
    above = [link for link in links if path == link or (link not in tops and path.startswith(link))]
    return max(above, key=len, default="")
