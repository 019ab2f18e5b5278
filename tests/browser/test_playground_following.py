"""The view stays with what comes, and lets the reader go at the first sign: wheel, finger or key."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.bench import Bench
from tests.browser.conftest import OpenBench
from tests.browser.scripts import Upstream
from tests.browser.test_playground_looks import PHONE

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LINES = ["line\n\n" * 40, *(f"line {number}\n\n" for number in range(3000))]
TOP = "() => document.querySelector('#scroll').scrollTop"
LEFT = """() => {
    const { scrollTop, scrollHeight, clientHeight } = document.querySelector("#scroll");
    return scrollHeight - scrollTop - clientHeight;
}"""
AT_END = f"() => ({TOP})() > 0 && ({LEFT})() < 5"
SETTLED_MS = 300  # in which some thirty lines come


def assert_left(bench: Bench) -> None:
    """The view stands still, however much comes."""
    bench.page.wait_for_selector("#latest:not([hidden])")
    bench.page.wait_for_timeout(SETTLED_MS)
    top, left = bench.page.evaluate(TOP), bench.page.evaluate(LEFT)
    bench.page.wait_for_timeout(SETTLED_MS)
    assert bench.reply().get_attribute("data-state") == "streaming"
    assert bench.page.evaluate(TOP) == top
    assert bench.page.evaluate(LEFT) > left


@pytest.fixture
def reading(upstream: Upstream, bench: Bench) -> Iterator[Bench]:
    """An answer that fills the view and goes on."""
    begin(upstream, bench)
    yield bench
    bench.page.keyboard.press("Escape")


def begin(upstream: Upstream, bench: Bench) -> None:
    upstream.paces(LINES, 0.01)
    bench.ask("A lot")
    bench.wait_text("line 3")
    bench.page.wait_for_function(AT_END)


@pytest.mark.parametrize("step", [3, 20])
def test_a_small_turn_of_the_wheel_leaves_it(reading: Bench, step: int) -> None:
    reading.page.hover("#scroll")
    for _ in range(3):
        reading.page.mouse.wheel(0, -step)
    assert_left(reading)


def test_who_scrolls_to_the_very_end_follows_again(reading: Bench) -> None:
    reading.page.hover("#scroll")
    reading.page.mouse.wheel(0, -200)
    assert_left(reading)
    reading.page.mouse.wheel(0, 60)  # nearer, and still not there
    assert_left(reading)
    reading.page.mouse.wheel(0, 100_000)
    reading.page.wait_for_selector("#latest", state="hidden")
    reading.page.wait_for_timeout(SETTLED_MS)
    reading.page.wait_for_function(AT_END)


def test_a_page_down_that_reaches_the_end_follows_again(upstream: Upstream, bench: Bench) -> None:
    go_on = upstream.says("line\n\n" * 60 + "middle", "line\n\n" * 60 + "end")
    bench.ask("A lot")
    bench.wait_text("middle")
    bench.page.focus("#scroll")
    bench.page.keyboard.press("ArrowUp")
    bench.page.wait_for_selector("#latest:not([hidden])")
    bench.page.keyboard.press("PageDown")
    bench.page.wait_for_selector("#latest", state="hidden")
    go_on()
    bench.wait("done")
    bench.page.wait_for_function(AT_END)


@pytest.mark.parametrize("key", ["PageUp", "ArrowUp", "Home"])
def test_a_key_leaves_it(reading: Bench, key: str) -> None:
    reading.page.focus("#scroll")
    reading.page.keyboard.press(key)
    assert_left(reading)
    reading.page.keyboard.press("End")
    reading.page.wait_for_selector("#latest", state="hidden")
    reading.page.wait_for_function(AT_END)


def test_a_key_in_a_text_field_does_not(reading: Bench) -> None:
    reading.page.focus("#draft")
    reading.page.keyboard.press("ArrowUp")
    reading.page.wait_for_timeout(SETTLED_MS)
    assert reading.page.locator("#latest").is_hidden()
    reading.page.wait_for_function(AT_END)


def test_a_finger_leaves_it(upstream: Upstream, open_bench: OpenBench) -> None:
    bench = open_bench(**PHONE)
    begin(upstream, bench)
    touch: Any = bench.page.context.new_cdp_session(bench.page)

    def send(kind: str, *points: int) -> None:
        found = [{"x": 150, "y": y} for y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    send("touchStart", 300)
    for y in range(305, 350, 5):
        send("touchMove", y)
    send("touchEnd")
    assert_left(bench)
    bench.page.click("#latest")
    bench.page.wait_for_function(AT_END)
    bench.page.click("#send")
    bench.wait("stopped")
