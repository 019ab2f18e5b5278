"""The playground for everybody: with a keyboard, with a screen reader, in the dark, on a phone."""

import json
from typing import Any

import pytest

from providers.models import LanguageModel, LLMProvider
from tests.browser.bench import Bench
from tests.browser.conftest import OpenBench
from tests.browser.scripts import LONG, OTHER, THOUGHTS, Upstream, begin, deltas, end
from tests.outside import NODE_CLIENTS

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AXE = NODE_CLIENTS / "node_modules" / "axe-core" / "axe.min.js"
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}
LOOKS = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": PHONE}
TARGET = 24  # pixels that a finger needs at least (WCAG 2.5.8)


def violations(bench: Bench) -> list[str]:
    """What axe finds serious on the page as it is now."""
    if not bench.page.evaluate("() => 'axe' in globalThis"):
        bench.page.evaluate(AXE.read_text())
    found = bench.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['html']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.node
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious(look: str, upstream: Upstream, open_bench: OpenBench) -> None:
    bench = open_bench(bypass_csp=True, **LOOKS[look])
    upstream.says(LONG + OTHER, reasoning=THOUGHTS)
    go_on = upstream.says("It comes ", "in parts.")
    upstream.cuts(after=2)
    found = {"empty": violations(bench)}
    bench.ask("Hello")
    bench.wait("done")
    found["done"] = violations(bench)
    bench.ask("And on")
    bench.wait_text("It comes")
    found["streaming"] = violations(bench)
    go_on()
    bench.wait("done")
    bench.page.click("#compare")
    bench.ask("Both")
    bench.wait("failed")
    found["failed"] = violations(bench)
    bench.reply().get_by_role("button", name="Request, response and code").click()
    found["code"] = violations(bench)
    bench.page.keyboard.press("Escape")
    if bench.page.locator("#open-settings").is_visible():
        bench.page.click("#open-settings")
    bench.page.click("#more summary")
    found["settings"] = violations(bench)
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_the_keyboard_is_enough(upstream: Upstream, bench: Bench) -> None:
    keyboard = bench.page.keyboard
    upstream.says("One. ", "Two.")
    bench.page.focus("#draft")
    keyboard.type("A question")
    keyboard.press("Enter")  # a new line, as in every text field
    keyboard.type("of two lines")
    keyboard.press("Control+Enter")
    bench.wait_text("One.")
    assert upstream.requests[0].body["messages"][0]["content"] == "A question\nof two lines"
    assert bench.page.evaluate("() => document.activeElement.id") == "draft"
    keyboard.press("Escape")
    bench.wait("stopped")
    bench.reply().get_by_role("button", name="Request, response and code").press("Enter")
    keyboard.press("ArrowRight")
    assert bench.page.locator("[role=tab][aria-selected=true]").inner_text() == "Response"
    keyboard.press("Escape")
    assert not bench.page.locator("#inspector").is_visible()
    focused = bench.page.evaluate("() => document.activeElement.title")
    assert focused == "Request, response and code"


def test_the_draft_is_not_sent_from_behind_a_dialog(upstream: Upstream, bench: Bench) -> None:
    bench.ask("Hello")
    bench.wait("done")
    bench.write("Not ready yet")
    bench.reply().get_by_role("button", name="Request, response and code").click()
    bench.page.keyboard.press("Control+Enter")
    bench.page.keyboard.press("Escape")
    assert bench.page.input_value("#draft") == "Not ready yet"
    assert bench.page.locator(".turn").count() == 1
    assert len(upstream.requests) == 1


FOCUSED = """() => {
    const focused = document.activeElement;
    const isSeen = getComputedStyle(focused).outlineStyle !== "none" || focused.matches("#draft, body");
    return isSeen ? focused.id || focused.tagName : `${focused.id} without a sign of it`;
}"""


def test_every_control_can_be_reached_by_tab_and_shows_that_it_has_the_focus(bench: Bench) -> None:
    reached = set()
    for _ in range(40):
        bench.page.keyboard.press("Tab")
        reached.add(bench.page.evaluate(FOCUSED))
    assert {"draft", "role", "compare", "system", "p-temperature", "p-max_tokens", "reset"} <= reached
    assert [one for one in reached if "without" in one] == []


def test_a_screen_reader_hears_what_comes(upstream: Upstream, bench: Bench) -> None:
    heard = """() => {
        globalThis.heard = [];
        const region = document.querySelector("#announcer");
        new MutationObserver(() => heard.push(region.textContent)).observe(region, { childList: true });
        return [region.getAttribute("aria-live"), region.getAttribute("role")];
    }"""
    assert bench.page.evaluate(heard) == ["polite", "status"]
    go_on = upstream.says("A **first** sentence. ", "A second one.")
    bench.ask("Hello")
    bench.wait_text("A first sentence.")
    assert bench.reply().get_attribute("aria-busy") == "true"
    go_on()
    bench.wait("done")
    assert bench.reply().get_attribute("aria-busy") == "false"
    begun, ended = bench.page.evaluate("() => heard")
    assert begun == "test-model is answering."
    assert ended.endswith("A second one. Answer of test-model complete.")


def test_dark_is_dark_and_light_is_light(open_bench: OpenBench) -> None:
    def ground(bench: Bench) -> int:
        colour = bench.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return sum(json.loads(colour.replace("rgb(", "[").replace(")", "]")))

    assert ground(open_bench()) > 700
    assert ground(open_bench(color_scheme="dark")) < 120


def test_on_a_phone_nothing_is_cut_off(upstream: Upstream, open_bench: OpenBench) -> None:
    upstream.says(LONG + "\n" + "long" * 100, reasoning=THOUGHTS)
    bench = open_bench(**PHONE)
    page = bench.page
    overflow = "() => document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0
    bench.ask("A question that is long enough to need more than one line on a small screen")
    bench.wait("done")
    page.click("#compare")
    assert page.evaluate(overflow) <= 0
    outside = """() => [...document.querySelectorAll("main *, header *")].filter((one) => {
        const { left, right, width } = one.getBoundingClientRect();
        const isInside = !one.closest("pre, .table, .unseen, svg, [hidden], dialog, .settings");
        return isInside && width > 1 && (left < 0 || right > innerWidth + 1);
    }).map((one) => one.outerHTML.slice(0, 120))"""
    assert page.evaluate(outside) == []
    small = """(least) => [...document.querySelectorAll("button, select, summary")].filter((one) => {
        const { width, height } = one.getBoundingClientRect();
        return one.checkVisibility() && (width < least || height < least);
    }).map((one) => one.outerHTML.slice(0, 120))"""
    assert page.evaluate(small, TARGET) == []
    page.click("#open-settings")
    assert page.locator("#system").is_visible()
    assert page.evaluate(overflow) <= 0
    page.keyboard.press("Escape")
    assert not page.locator("#system").is_visible()


CLIPPED = """() => [...document.querySelectorAll(".facts > div:not([hidden]), .facts dd")].filter((one) => {
    const card = one.closest(".reply").getBoundingClientRect();
    return one.getBoundingClientRect().right > card.right || one.scrollWidth > one.clientWidth + 1;
}).map((one) => one.textContent)"""


@pytest.mark.parametrize("look", [{"viewport": {"width": 1280, "height": 800}}, PHONE])
def test_beside_two_others_an_answers_facts_are_whole(
    look: dict[str, Any], upstream: Upstream, open_bench: OpenBench
) -> None:
    provider = LLMProvider.objects.get()
    for name in ("second-model", "third-model"):
        LanguageModel.objects.create(provider=provider, name=name)
    usage = {"prompt_tokens": 123_456, "completion_tokens": 23_456, "total_tokens": 146_912}
    upstream.scripts(lambda _: [*begin(), 0.3, *deltas("content", LONG), 0.3, *end(usage)])
    bench = open_bench(**look)
    for _ in range(2):
        bench.page.click("#compare")
    bench.ask("All three")
    for at in range(3):
        bench.wait("done", at)
        assert "Tokens" in bench.facts(at)
    assert bench.page.evaluate(CLIPPED) == []


def test_the_view_stays_with_what_comes_unless_the_reader_scrolls_away(
    upstream: Upstream, bench: Bench
) -> None:
    go_on = upstream.says("line\n\n" * 60 + "middle", "line\n\n" * 60 + "end")
    bench.ask("A lot")
    bench.wait_text("middle")
    at_end = """() => {
        const { scrollHeight, scrollTop, clientHeight } = document.querySelector("#scroll");
        return scrollHeight - scrollTop - clientHeight < 5;
    }"""
    bench.page.wait_for_function(at_end)
    bench.page.hover("#scroll")
    bench.page.mouse.wheel(0, -600)
    bench.page.wait_for_selector("#latest:not([hidden])")
    go_on()
    bench.wait("done")
    assert not bench.page.evaluate(at_end)
    bench.page.click("#latest")
    bench.page.wait_for_function(at_end)
