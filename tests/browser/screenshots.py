"""Pictures of '/' and of every admin page: light, dark and on a phone, to be looked at.

    python -m tests.browser.screenshots [FOLDER]      (default: test-results/screenshots)

Runs the hub on a throw-away data directory with rows in every state. Ends with 1, and says where, if a page
fails, asks another host for anything, or logs an error in the browser's console.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.outside import CHROMIUM

PORT = 18_417
BASE = f"http://127.0.0.1:{PORT}"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1440, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1440, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True},
}
USER = "ada"
PASSWORD = "a password for pictures"


def sample_rows() -> dict[str, str]:
    """A hub that has seen some life; the pages to picture, by name."""
    from django.contrib.auth.models import User

    from completions.keys import create_key, revoke
    from completions.models import Project
    from providers.models import LLMProvider, ModelPrice

    User.objects.create_superuser(USER, "ada@example.com", PASSWORD)
    demo, good, broken = _providers()
    price = ModelPrice.objects.create(
        model=good.models.get(name="gpt-4o"), prompt=Decimal("2.5"), cached=Decimal("1.25"), completion=10
    )
    project = Project.objects.create(slug="web", name="Web shop")
    Project.objects.create(slug="research", name="Research", enabled=False)
    key, _ = create_key(project, "checkout service")
    old, _ = create_key(project, "old laptop")
    revoke(old)
    create_key(project, "trial", expires_at=key.created_at - timedelta(days=1))
    calls = _calls(project, key, good)
    assert LLMProvider.objects.count() == 3
    return {
        "provider": f"/admin/providers/llmprovider/{good.pk}/change/",
        "provider-demo": f"/admin/providers/llmprovider/{demo.pk}/change/",
        "provider-broken-key": f"/admin/providers/llmprovider/{broken.pk}/change/",
        "provider-delete": f"/admin/providers/llmprovider/{good.pk}/delete/",
        "provider-history": f"/admin/providers/llmprovider/{good.pk}/history/",
        "provider-asked": f"/admin/providers/llmprovider/{good.pk}/test_connection/",
        "model": f"/admin/providers/languagemodel/{price.model_id}/change/",
        "price": f"/admin/providers/modelprice/{price.pk}/change/",
        "project": f"/admin/completions/project/{project.pk}/change/",
        "key": f"/admin/completions/apikey/{key.pk}/change/",
        "key-revoke": f"/admin/completions/apikey/{key.pk}/revoke/",
        "call-ok": f"/admin/completions/completion/{calls[0]}/change/",
        "call-failed": f"/admin/completions/completion/{calls[1]}/change/",
    }


def _providers() -> tuple[Any, Any, Any]:
    from django.utils import timezone

    from providers.fields import Ciphertext
    from providers.models import Health, LanguageModel, LLMProvider

    demo = LLMProvider.objects.create(
        slug="demo", name="Demo", type="demo", default_model="demo", priority=900, health=Health.OK
    )
    LanguageModel.objects.create(provider=demo, name="demo", capabilities=["chat"])
    good = LLMProvider.objects.create(
        slug="openai",
        name="OpenAI",
        type="openai",
        preset="openai",
        api_key="sk-example-of-a-key-1234",
        default_model="gpt-4o",
    )
    for number, name in enumerate(("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")):
        LanguageModel.objects.create(
            provider=good, name=name, context_window=128_000, max_output=16_384,
            capabilities=["chat", "tools", "vision"], enabled=number < 2,
        )  # fmt: skip
    broken = LLMProvider.objects.create(
        slug="mistral", name="Mistral", type="openai_compatible", base_url="https://api.mistral.ai/v1",
        default_model="mistral-small-latest", api_key="another-example-of-a-key",
    )  # fmt: skip
    LanguageModel.objects.create(provider=broken, name="mistral-small-latest")
    now = timezone.now()
    LLMProvider.objects.filter(pk=good.pk).update(health=Health.OK, health_message="", checked_at=now)
    LLMProvider.objects.filter(pk=broken.pk).update(
        api_key=Ciphertext("written-with-a-lost-encryption-key"),
        health=Health.AUTH_FAILED,
        health_message="The API key of provider mistral cannot be decrypted.",
        checked_at=now,
    )
    return demo, good, broken


def _calls(project: Any, key: Any, provider: Any) -> list[Any]:
    from django.utils import timezone

    from completions.ledger import new_id
    from completions.models import Completion, State

    states = [
        State.TIMEOUT_FIRST_TOKEN, State.OK, State.OK, State.CLIENT_GONE,
        State.UPSTREAM_ERROR, State.OK, State.RUNNING, State.OK,
    ]  # fmt: skip
    made = {}
    for number, state in enumerate(states * 8):
        answered = state in (State.OK, State.CLIENT_GONE)
        row = Completion.objects.create(
            id=new_id(), request_id=f"req-{number:04}", project=project, api_key=key, surface="api",
            requested_model="gpt-4o", provider=provider, provider_slug=provider.slug,
            model="gpt-4o-2024-08-06", state=state, attempts=1,
            finish_reason="stop" if state == State.OK else "",
            prompt_tokens=1200 + number if answered else None, completion_tokens=340 if answered else None,
            cached_tokens=0 if answered else None, usage_source="provider" if answered else "",
            cost_nano_usd=(12_345 + number * 1_000_003 if number % 5 else None) if answered else None,
            price_source="override 2026-11-01" if answered else "", created_at=timezone.now(),
            error_code="PROVIDER_ERROR" if state == State.UPSTREAM_ERROR else "",
            error_message="The provider answered 503: overloaded." if state == State.UPSTREAM_ERROR else "",
            first_token_ms=210 if answered else None,
            latency_ms=1800 + number if state != State.RUNNING else None,
        )  # fmt: skip
        made[state] = row.pk
    return [made[State.OK], made[State.UPSTREAM_ERROR]]


FIXED_PAGES = {
    "home": "/",
    "dashboard": "/admin/",
    "providers": "/admin/providers/llmprovider/",
    "provider-add": "/admin/providers/llmprovider/add/",
    "models": "/admin/providers/languagemodel/",
    "prices": "/admin/providers/modelprice/",
    "price-add": "/admin/providers/modelprice/add/",
    "projects": "/admin/completions/project/",
    "project-add": "/admin/completions/project/add/",
    "keys": "/admin/completions/apikey/",
    "key-add": "/admin/completions/apikey/add/",
    "calls": "/admin/completions/completion/",
    "users": "/admin/auth/user/",
    "user-add": "/admin/auth/user/add/",
    "user": "/admin/auth/user/1/change/",
    "groups": "/admin/auth/group/",
    "not-found": "/no-such-page/",
}


class Album:
    """Takes the pictures of one look, and notes what went wrong meanwhile."""

    def __init__(self, browser: Any, folder: Path, look: str) -> None:
        self.look, self.folder, self.problems = look, folder, list[str]()
        self.page = browser.new_page(**LOOKS[look])
        self.page.on("request", self._watch)
        self.page.on("pageerror", lambda error: self.problems.append(f"{look} {self.page.url}: {error}"))
        self.page.on("console", self._listen)

    def _watch(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(BASE).netloc and request.url.startswith("http"):
            self.problems.append(f"{self.look} {self.page.url} asked another host: {request.url}")

    def _listen(self, message: Any) -> None:
        if message.type == "error" and "404" not in message.text:
            self.problems.append(f"{self.look} {self.page.url}: {message.text}")

    def take(self, name: str, path: str) -> None:
        answer = self.page.goto(BASE + path, wait_until="networkidle")
        if answer is None or answer.status >= 500:
            self.problems.append(f"{self.look} {path}: answered {answer and answer.status}")
        self.snap(name)

    def snap(self, name: str) -> None:
        """The whole page: the window grows to it first, so that what sticks to its edges covers nothing."""
        size = LOOKS[self.look]["viewport"]
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size(size | {"height": min(max(height, size["height"]), 3000)})
        self.page.screenshot(path=self.folder / f"{name}-{self.look}.png")
        self.page.set_viewport_size(size)

    def sign_in(self) -> None:
        self.take("home-anonymous", "/")
        self.take("sign-in", "/admin/login/?next=/admin/")
        self.page.fill("[name=username]", USER)
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("[type=submit]")
        self.page.wait_for_url(BASE + "/admin/")

    def walk(self, pages: dict[str, str]) -> None:
        for name, path in pages.items():
            self.take(name, path)
        self.take("calls-filters", "/admin/completions/completion/")
        self.page.click("text=Filters")
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=self.folder / f"calls-filters-{self.look}.png")
        self.take("provider-preset", "/admin/providers/llmprovider/add/")
        self.page.select_option("[name=preset]", "mistral")
        self.snap("provider-preset")
        self.page.click("[name=_save]")
        self.page.wait_for_load_state("networkidle")
        self.snap("provider-refused" if "/add/" in self.page.url else "provider-saved")
        if self.look != "phone":  # there, the actions hide behind a menu
            self.page.goto(BASE + pages["provider-demo"])
            self.page.click("text=Test connection")
            self.page.wait_for_selector("text=/Connected in/")
            self.snap("provider-tested")
        self.take("key-made", "/admin/completions/apikey/add/?project=1")
        self.page.fill("[name=name]", f"shown once, {self.look}")
        self.page.click("[name=_save]")
        self.page.wait_for_load_state("networkidle")
        self.snap("key-made")


def wait_until_up(server: "subprocess.Popen[bytes]") -> None:
    for _ in range(150):
        with suppress(URLError, ConnectionError), urlopen(BASE + "/", timeout=2):  # noqa: S310 - our own server
            return
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise SystemExit("the hub did not start")


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llmhub-pictures-") as data:
        os.environ |= {"LLMHUB_DATA_DIR": data, "DJANGO_SETTINGS_MODULE": "llmhub.settings"}
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        pages = FIXED_PAGES | sample_rows()
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "llmhub.asgi:application",
            "--port",
            str(PORT),
            "--log-level",
            "warning",
        ]
        server = subprocess.Popen(command)
        try:
            wait_until_up(server)
            problems = picture(folder, pages)
        finally:
            server.terminate()
            server.wait(20)
    sys.stdout.write(
        "".join(f"{problem}\n" for problem in problems) or f"No problems. Look at {folder}/*.png\n"
    )
    return 1 if problems else 0


def picture(folder: Path, pages: dict[str, str]) -> list[str]:
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for look in LOOKS:
            album = Album(browser, folder, look)
            album.sign_in()
            album.walk(pages)
            problems += album.problems
        browser.close()
    return problems


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "test-results/screenshots")))
