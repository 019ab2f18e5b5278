"""The playground as a person uses it, and what a browser complains of meanwhile."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 15_000
# What Chromium itself logs when a request finds no network: the page cannot prevent it.
NO_NETWORK = ("net::ERR_", "WebSocket connection to", "Failed to load resource")


class Watched:
    """A page in a browser. `problems`: errors it logged, requests it made to other hosts."""

    def __init__(self, page: Any, hosts: set[str]) -> None:
        self.page = page
        self.problems: list[str] = []
        self.network_fails = False
        self._hosts = hosts
        page.set_default_timeout(PATIENCE_MS)
        self._listeners: dict[str, Callable[[Any], None]] = {
            "pageerror": lambda error: self.problems.append(f"error: {error}"),
            "console": self._listen,
            "request": lambda request: self._watch(request.url),
            "websocket": lambda socket: self._watch(socket.url),
        }
        for name, listener in self._listeners.items():
            page.on(name, listener)

    def leave(self) -> None:
        """Watch the page no longer."""
        for name, listener in self._listeners.items():
            self.page.remove_listener(name, listener)

    def _listen(self, message: Any) -> None:
        if message.type not in ("error", "warning") or message.location["url"].endswith("/favicon.ico"):
            return
        if not (self.network_fails and any(words in message.text for words in NO_NETWORK)):
            self.problems.append(f"{message.type}: {message.text}")

    def _watch(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc not in self._hosts:
            self.problems.append(f"asked another host: {url}")


class Bench(Watched):
    """The playground, open in a browser of its own."""

    def open(self, *, wait: bool = True) -> "Bench":
        """Waits until the models are there."""
        self.page.goto("/playground/")
        if wait:
            self.page.wait_for_selector("#panes select:not([disabled])")
        return self

    def write(self, text: str) -> None:
        self.page.fill("#draft", text)

    def ask(self, text: str) -> None:
        self.write(text)
        self.page.click("#send")

    def reply(self, at: int = -1) -> Any:
        """An answer on the page; the newest, if not said otherwise."""
        return self.page.locator(".reply").nth(at)

    def wait(self, state: str, at: int = -1) -> None:
        """Until an answer is waiting, streaming, done, stopped or failed."""
        self.page.wait_for_function(
            "([state, at]) => [...document.querySelectorAll('.reply')].at(at)?.dataset.state === state",
            arg=[state, at],
        )

    def wait_text(self, text: str, at: int = -1) -> None:
        """Until an answer shows a text."""
        self.page.wait_for_function(
            "([text, at]) => [...document.querySelectorAll('.reply')].at(at)?.textContent.includes(text)",
            arg=[text, at],
        )

    def text(self, at: int = -1) -> str:
        """An answer as it is kept: to the byte what came."""
        return str(self.kept()[at]["text"])

    def kept(self) -> list[dict[str, Any]]:
        """All answers as the browser keeps them, were the page left now."""
        self.page.evaluate("dispatchEvent(new Event('pagehide'))")
        kept = self.page.evaluate("sessionStorage.getItem('llmhub.playground')")
        return [reply for turn in json.loads(kept)["turns"] for reply in turn["replies"]]

    def facts(self, at: int = -1) -> dict[str, str]:
        """What an answer's foot says: Tokens, Cost, Speed …"""
        rows = self.reply(at).locator(".facts > div:not([hidden])")
        return dict(text.split("\n", 1) for text in rows.all_inner_texts())

    def code(self, view: str, at: int = -1) -> str:
        """An answer's request, as one of the views of it shows it."""
        self.reply(at).get_by_role("button", name="Request, response and code").click()
        self.page.get_by_role("tab", name=view, exact=True).click()
        shown = self.page.text_content("#inspector-text")
        self.page.keyboard.press("Escape")
        return str(shown)
