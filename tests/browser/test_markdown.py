"""What a model says is shown as markdown and never as HTML: hostile answers, whole and half come in."""

import time
from collections.abc import Iterable
from typing import Any

import pytest

from tests.browser.bench import Bench
from tests.browser.conftest import OpenBench
from tests.browser.corpus import CORPUS, LENGTHY, SHOWN
from tests.browser.scripts import HOSTILE, Upstream

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

MOST_SECONDS = 2.0
SHOW = """async ([text, steps]) => {
    const { Markdown } = await import("/static/completions/playground/markdown.js");
    const element = document.createElement("div");
    document.querySelector("#turns").replaceChildren(element);
    const view = new Markdown(element);
    for (const end of steps) view.show(text.slice(0, end), true);
    view.show(text);
    return element.innerHTML;
}"""
# Every element that may be there, with its attributes.
INSPECT = """() => {
    const allowed = {
        P: "dir", H3: "class dir", H4: "class dir", H5: "class dir", H6: "class dir", BLOCKQUOTE: "dir",
        HR: "", BR: "", EM: "", STRONG: "", S: "", CODE: "", UL: "", OL: "start", LI: "dir class",
        INPUT: "type disabled checked aria-label", A: "href rel target title class",
        FIGURE: "class", FIGCAPTION: "", SPAN: "", PRE: "tabindex role aria-label",
        BUTTON: "type class title", svg: "viewBox class aria-hidden", path: "d",
        DIV: "class tabindex role aria-label", TABLE: "", THEAD: "", TBODY: "", TR: "",
        TH: "class dir scope", TD: "class dir",
    };
    const wrong = [];
    for (const element of document.querySelectorAll("#turns > div *")) {
        const names = ` ${allowed[element.tagName] ?? "nothing"} `;
        const isKnown = [...element.attributes].every(({ name }) => names.includes(` ${name} `));
        const isLink = element.tagName === "A";
        const isSafe = !isLink || (/^https?:$/.test(element.protocol) && element.rel.includes("noopener"));
        if (names === " nothing " || !isKnown || !isSafe) wrong.push(element.outerHTML);
    }
    return wrong;
}"""
# Press whatever is no ordinary link.
PRESS = """() => {
    for (const link of document.querySelectorAll("#turns a")) if (!/^http/.test(link.protocol)) link.click();
}"""


class Renderer:
    """The playground's, in a page whose policy is off: what that would stop must not even be tried."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def __call__(self, text: str, steps: Iterable[int] = ()) -> str:
        """What becomes of a text; `steps` are lengths at which it was shown before it was whole."""
        return str(self.page.evaluate(SHOW, [text, list(steps)]))

    def wrong(self) -> list[str]:
        """Elements that should not be there."""
        return list(self.page.evaluate(INSPECT))

    def assert_harmless(self) -> None:
        assert self.page.evaluate("() => globalThis.hacked ?? null") is None


@pytest.fixture
def show(open_bench: OpenBench) -> Renderer:
    return Renderer(open_bench(bypass_csp=True).page)


def test_no_text_becomes_an_element_that_the_renderer_did_not_mean(show: Renderer) -> None:
    wrong = {}
    for text in CORPUS:
        show(text, range(len(text)))
        if found := show.wrong():
            wrong[text] = found
        show.page.evaluate(PRESS)
    assert wrong == {}
    show.assert_harmless()


def test_half_a_hostile_text_is_as_harmless_as_the_whole(show: Renderer) -> None:
    text = "\n\n".join(CORPUS)
    for end in range(0, len(text), 17):
        show(text[:end])
        assert show.wrong() == [], text[:end]
    show.assert_harmless()


def test_what_markdown_means(show: Renderer) -> None:
    wrong = {}
    for text, html in SHOWN:
        whole, grown = show(text), show(text, range(len(text)))
        if html not in whole or grown != whole:  # it does not matter how it came in
            wrong[text] = (whole, grown)
    assert wrong == {}


def test_no_text_makes_the_page_hang(show: Renderer) -> None:
    def seconds(text: str) -> float:
        began = time.monotonic()
        show(text)
        return time.monotonic() - began

    # A busy machine may be late once, a slow renderer is each time.
    slow = {name for name, text in LENGTHY.items() if all(seconds(text) > MOST_SECONDS for _ in range(4))}
    assert slow == set()


def test_a_hostile_answer_is_shown_as_what_it_is(upstream: Upstream, bench: Bench) -> None:
    upstream.says(HOSTILE)
    bench.ask("Hack me")
    bench.wait("done")
    assert bench.page.evaluate("() => globalThis.hacked ?? null") is None
    assert '<script>window.hacked = "script"</script>' in bench.reply().inner_text()
    links = bench.reply().locator(".md a").evaluate_all("(all) => all.map((one) => one.href)")
    assert links == ["https://evil.example/pixel.png", "https://good.example/page"]
