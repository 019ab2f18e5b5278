"""Where alerts may be posted."""

from urllib.parse import urlsplit

from providers import egress


def webhook_problem(url: str) -> str:
    """Why alerts cannot be posted to `url`; empty when they can."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        valid = False
    if not valid:
        return "Use http:// or https:// with a host, and without a user."
    return egress.refusal(url)
