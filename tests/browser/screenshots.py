"""Pictures of every page: light, dark and on a phone, to be looked at; some of them are docs/images.

    python -m tests.browser.screenshots [pages] [playground]      (default: both)

Runs the hub on a throw-away data directory with rows in every state, and writes test-results/screenshots.
Ends with 1, and says where, if a page fails, asks another host for anything, or logs an error.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.browser import playground
from tests.browser.album import FLAGS, LOOKS, Album
from tests.browser.samples import sample_rows
from tests.fakes import FakeUpstream
from tests.outside import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "test-results" / "screenshots"
DOCS = ROOT / "docs" / "images"
PORT = 18_417
BASE = f"http://127.0.0.1:{PORT}"
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

RUNNING = "/admin/completions/completion/running/"
BEGIN_CALLS = """async () => {
    const { LLMHub } = await import("/static/completions/llmhub-client.js");
    const hub = new LLMHub({ project: "web" });
    for (const content of ["What are you?", "Which colours does the sea have?", "Write a poem about sums."])
        hub.stream({ model: "demo/demo", messages: [{ role: "user", content }] });
}"""


def main(parts: list[str]) -> int:
    for folder in (PICTURES, DOCS):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llmhub-pictures-") as data, FakeUpstream() as upstream:
        os.environ |= {
            "LLMHUB_DATA_DIR": data,
            "HOST": "127.0.0.1",
            "PORT": str(PORT),
            "DJANGO_SETTINGS_MODULE": "llmhub.settings",
        }
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        pages = FIXED_PAGES | sample_rows()
        playground.sample_rows(upstream)
        server = subprocess.Popen([sys.executable, "manage.py", "serve"], cwd=ROOT)
        try:
            wait_until_up(server)
            problems = picture(pages, parts)
        finally:
            server.terminate()
            server.wait(20)
    sys.stdout.write(
        "".join(f"{problem}\n" for problem in problems) or f"No problems. Look at {PICTURES}/*.png\n"
    )
    return 1 if problems else 0


def walk(album: Album, pages: dict[str, str]) -> None:
    """Every page but the playground."""
    page = album.page
    album.take("home-anonymous", "/")
    album.take("sign-in", "/sign-in/")
    album.take("sign-in-admin", "/admin/login/?next=/admin/")
    album.sign_in()
    for name, path in pages.items():
        album.take(name, path)
    album.take("running-none", RUNNING)
    page.evaluate(BEGIN_CALLS)
    page.wait_for_selector("[id^=call-]:nth-of-type(3)")
    album.still("running")
    album.take("calls-filters", "/admin/completions/completion/")
    page.click("text=Filters")
    page.wait_for_timeout(300)
    page.screenshot(path=album.folder / f"calls-filters-{album.look}.png")
    album.take("provider-preset", "/admin/providers/llmprovider/add/")
    page.select_option("[name=preset]", "mistral")
    album.snap("provider-preset")
    page.click("[name=_save]")
    page.wait_for_load_state("networkidle")
    album.snap("provider-refused" if "/add/" in page.url else "provider-saved")
    if album.look != "phone":  # there, the actions hide behind a menu
        page.goto(pages["provider-demo"])
        page.click("text=Test connection")
        page.wait_for_selector("text=/Connected in/")
        album.snap("provider-tested")
    album.take("key-made", "/admin/completions/apikey/add/?project=1")
    page.fill("[name=name]", f"shown once, {album.look}")
    page.click("[name=_save]")
    page.wait_for_load_state("networkidle")
    album.snap("key-made")
    page.goto(pages["key-rotate"])
    page.click("text=Rotate, and show")
    page.wait_for_load_state("networkidle")
    album.snap("key-rotated")
    album.take("budget-refused", "/admin/completions/budget/add/")
    page.fill("[name=thresholds]", "half")
    page.fill("[name=amount]", "3")
    page.click("[name=_save]")
    page.wait_for_load_state("networkidle")
    album.snap("budget-refused")


def wait_until_up(server: "subprocess.Popen[bytes]") -> None:
    for _ in range(150):
        with suppress(URLError, ConnectionError), urlopen(BASE + "/", timeout=2):  # noqa: S310 - our own server
            return
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise SystemExit("the hub did not start")


def picture(pages: dict[str, str], parts: list[str]) -> list[str]:
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for look in LOOKS:
            if "pages" in parts:
                album = Album(browser, (PICTURES, DOCS), BASE, look)
                walk(album, pages)
                problems += album.problems
            if "playground" in parts:
                shape = playground.SHAPE if look != "phone" else None
                album = Album(browser, (PICTURES, DOCS), BASE, look, shape)
                album.sign_in()
                playground.walk(album)
                problems += album.problems
        browser.close()
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["pages", "playground"]))
