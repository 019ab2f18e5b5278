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
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.browser.samples import PASSWORD, USER, sample_rows
from tests.outside import CHROMIUM

PORT = 18_417
BASE = f"http://127.0.0.1:{PORT}"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1440, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1440, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True},
}
FIXED_PAGES = {
    "budgets": "/admin/completions/budget/",
    "budget-add": "/admin/completions/budget/add/",
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
    "spend": "/admin/completions/completion/spend/",
    "spend-by-key": "/admin/completions/completion/spend/?period=7d&by=key",
    "unpriced": "/admin/completions/completion/unpriced/",
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
        self.page.goto(BASE + pages["key-rotate"])
        self.page.click("text=Rotate, and show")
        self.page.wait_for_load_state("networkidle")
        self.snap("key-rotated")
        self.take("budget-refused", "/admin/completions/budget/add/")
        self.page.fill("[name=thresholds]", "half")
        self.page.fill("[name=amount]", "3")
        self.page.click("[name=_save]")
        self.page.wait_for_load_state("networkidle")
        self.snap("budget-refused")


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
