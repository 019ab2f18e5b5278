"""Two tabs of one browser: what is done in one, and what the other makes of it."""

from urllib.parse import urlsplit

import pytest

from tests.browser.bench import Bench
from tests.browser.line import Line
from tests.browser.scripts import Upstream

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

KEPT = "() => [localStorage.length, sessionStorage.length]"


@pytest.fixture
def answering(upstream: Upstream, bench: Bench) -> Bench:
    """A tab whose answer goes on."""
    upstream.says("Some. ", "And the rest.")
    bench.ask("A lot")
    bench.wait_text("Some.")
    bench.page.wait_for_function(
        "() => JSON.parse(localStorage['llmhub.playground'] ?? '{}').turns?.[0]?.replies[0]?.place"
    )
    return bench


@pytest.fixture
def second(answering: Bench, line: Line) -> Bench:
    """Another tab, where the same conversation is shown."""
    bench = Bench(answering.page.context.new_page(), {urlsplit(line.url).netloc}).open()
    bench.wait_text("Some.")
    return bench


def test_who_signs_out_in_one_tab_is_forgotten_by_all(
    upstream: Upstream, answering: Bench, second: Bench
) -> None:
    second.write("A secret draft")
    answering.network_fails = second.network_fails = True
    answering.page.click("text=Sign out")
    answering.page.wait_for_url("**/")
    second.page.wait_for_selector("#empty:not([hidden]) >> text=You are signed out")
    assert second.page.locator(".turn").count() == 0
    assert second.page.input_value("#draft") == ""
    assert second.page.is_disabled("#draft")
    assert second.page.is_disabled("#send")
    assert upstream.requests[0].wait_gone()
    second.page.fill("#system", "Typed afterwards")
    second.page.wait_for_timeout(500)
    second.page.goto("/static/completions/favicon.svg")
    assert second.page.evaluate(KEPT) == [0, 0]
    assert second.problems == []


def test_what_a_tab_forgot_while_it_was_elsewhere_does_not_come_back(answering: Bench) -> None:
    answering.page.goto("/static/completions/favicon.svg")
    answering.page.evaluate("() => localStorage.clear()")  # as another tab does that signs out
    answering.open()
    assert answering.page.locator(".turn").count() == 0


@pytest.mark.parametrize("way", ["New", "Remove"])
def test_one_tab_does_not_stop_the_answer_of_the_other(
    upstream: Upstream, answering: Bench, second: Bench, way: str
) -> None:
    if way == "New":
        second.page.click("#clear")
    else:
        second.page.hover(".message")
        second.page.click("[aria-label='Remove the message and its answers']")
    assert second.page.locator(".turn").count() == 0
    second.page.wait_for_timeout(300)
    upstream.release()
    answering.wait("done")
    assert answering.text() == "Some. And the rest."
    second.page.click("text=Undo")
    second.wait("done")
    second.wait_text("Some. And the rest.")


def test_stop_stops_it_in_either(upstream: Upstream, answering: Bench, second: Bench) -> None:
    second.page.click("#send")
    second.wait("stopped")
    answering.wait("stopped")
    assert upstream.requests[0].wait_gone()
