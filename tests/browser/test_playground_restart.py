"""A newcomer's first minutes with a hub as it is served, through the hub's own death."""

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.bench import Bench
from tests.proofs.hub import Hub, _template, hub_in

pytestmark = pytest.mark.browser

QUESTION = " ".join("abcdefgh" * 10)  # the demo provider repeats it, word by word: that takes three seconds


def new_hub(hub: Hub) -> tuple[str, str]:
    """Set up as on the first `make run`; gives the name and the password that are printed."""
    shutil.copy(_template(), hub.folder / "llmhub.sqlite3")
    done = hub.manage("bootstrap")
    found = re.search(r"Login +(\S+)\s+Password +(\S+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return found[1], found[2]


def sign_in(bench: Bench, name: str, password: str) -> None:
    page = bench.page
    page.goto("/playground/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", password)
    page.click("form .button")
    page.wait_for_selector("#panes select:not([disabled])")


def test_a_newcomer_gets_an_answer_and_a_restart_in_its_middle_is_said_honestly(
    browser: Any, tmp_path: Path
) -> None:
    with hub_in(tmp_path) as hub:
        name, password = new_hub(hub)
        hub.start()
        bench = Bench(browser.new_page(base_url=hub.url), {urlsplit(hub.url).netloc})
        bench.network_fails = True
        sign_in(bench, name, password)
        bench.ask(QUESTION)
        bench.wait_text("You wrote:")
        hub.kill()
        bench.page.wait_for_selector("#notice >> text=The connection is lost.")
        hub.start()
        bench.wait("failed")
        assert "The rest of this answer is lost" in bench.reply().inner_text()
        assert bench.text().startswith("You wrote:")

        bench.ask("What are you?")
        bench.wait("done")
        assert bench.text().startswith("llmhub is a self-hosted hub")
        assert bench.problems == []
        bench.page.context.close()
