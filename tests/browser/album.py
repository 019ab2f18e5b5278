"""Takes pictures of the hub's pages in one look, and notes what went wrong meanwhile."""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.browser.samples import PASSWORD, USER

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1440, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1440, "height": 900}},
    "phone": {
        "color_scheme": "light", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2,
        "is_mobile": True, "has_touch": True,
    },
}  # fmt: skip
TALLEST = 3000  # of a picture, in pixels of the page


# Those that the documentation shows.
SHOWN = {
    "playground-light", "playground-dark", "playground-phone", "playground-compare-light",
    "playground-lost-light", "playground-budget-spent-light", "cached-light", "miss-diff-light",
    "provider-preset-light",
}  # fmt: skip


class Album:
    """One browser window. Pictures go to the first folder, those for the documentation to the second too."""

    def __init__(
        self,
        browser: Any,
        folders: tuple[Path, Path],
        base: str,
        look: str,
        shape: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.docs = folders
        self.base, self.look = base, look
        self.problems: list[str] = []
        self.page = browser.new_page(base_url=base, **LOOKS[look] | (shape or {}))
        self.page.set_default_timeout(15_000)
        self.page.on("request", self._watch)
        self.page.on("pageerror", lambda error: self.problems.append(f"{look} {self.page.url}: {error}"))
        self.page.on("console", self._listen)

    def _watch(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.base).netloc and request.url.startswith("http"):
            self.problems.append(f"{self.look} {self.page.url} asked another host: {request.url}")

    def _listen(self, message: Any) -> None:
        expected = "404" in message.text or "ERR_INTERNET_DISCONNECTED" in message.text
        if message.type == "error" and not expected:
            self.problems.append(f"{self.look} {self.page.url}: {message.text}")

    def goto(self, path: str) -> None:
        answer = self.page.goto(path, wait_until="networkidle")
        if answer is None or answer.status >= 500:
            self.problems.append(f"{self.look} {path}: answered {answer and answer.status}")

    def take(self, name: str, path: str) -> None:
        self.goto(path)
        self.snap(name)

    def snap(self, name: str) -> None:
        """The whole page: the window grows to it first, so that what sticks to its edges covers nothing."""
        size = LOOKS[self.look]["viewport"]
        height = self.page.evaluate("document.documentElement.scrollHeight")
        self.page.set_viewport_size(size | {"height": min(max(height, size["height"]), TALLEST)})
        self.still(name)
        self.page.set_viewport_size(size)

    def still(self, name: str) -> None:
        """The window as it is."""
        path = self.folder / f"{name}-{self.look}.png"
        self.page.screenshot(path=path)
        if path.stem in SHOWN:
            shutil.copy(path, self.docs)

    def sign_in(self) -> None:
        self.page.goto("/admin/login/?next=/admin/")
        self.page.fill("[name=username]", USER)
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("[type=submit]")
        self.page.wait_for_url("**/admin/")
