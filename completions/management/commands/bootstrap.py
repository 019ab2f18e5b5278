"""`manage.py bootstrap`: set up an empty hub without serving it, as containers do before they start."""

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, OutputWrapper

from completions import bootstrap

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to find a hub that listens everywhere


def hub_url(port: int | None = None) -> str:
    """Where a browser on this machine finds the hub, without a slash at the end."""
    host = ANYWHERE.get(settings.HOST, settings.HOST)
    return f"http://{f'[{host}]' if ':' in host else host}:{port or settings.PORT}"


def prepare(out: OutputWrapper) -> None:
    """Migrate and set up; say what was made, once."""
    bootstrap.make_data_dir()
    with bootstrap.alone():
        if count := bootstrap.pending_migrations():
            out.write(f"Preparing the database ({count} migrations) …")
            out.flush()
            bootstrap.migrate()
        welcome = bootstrap.set_up()
    for line in _lines(welcome):
        out.write(line)
    out.flush()


def _lines(welcome: bootstrap.Welcome) -> list[str]:
    url = hub_url()
    lines = []
    if welcome.password is not None:
        lines += [f"  Admin     {url}/admin/", f"  Login     {welcome.username}"]
        lines += [f"  Password  {welcome.password.reveal()}"]
    if welcome.api_key is not None:
        lines += [f"  API key   {welcome.api_key.reveal()}"]
    if not lines:
        return [f"Already set up. Keys are shown once; another one: {url}/admin/completions/apikey/add/"]
    lines = ["", "Your hub is set up. This is shown once, so keep it:", "", *lines, ""]
    if welcome.api_key is not None and welcome.demo_model is not None:
        lines += ["Try it:", "", _curl(url, welcome.api_key.reveal(), welcome.demo_model), ""]
    return lines


def _curl(url: str, key: str, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "What are you?"}]}
    return (
        f"  curl {url}/api/completions/ -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


class Command(BaseCommand):
    help = (
        "Set up an empty hub: migrate, then make a superuser, a project with an API key and a demo provider, "
        "each only where none exists. What was made is printed once."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        prepare(self.stdout)
