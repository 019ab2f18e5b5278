"""An answer survives what happens to laptops: reloads, networks that come and go, a hub that restarts."""

import json

import pytest

from completions.models import Completion
from tests.browser.bench import Bench
from tests.browser.line import Line
from tests.browser.scripts import Upstream

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

BEFORE, AFTER = "What came before: é, 漢字, 👍🏽. ", "And what came after it, whole."
PARTS = [f"Part {number}, with some 漢字 and 👍🏽 in it, {'x' * number}; " for number in range(150)]


def assert_one_call(upstream: Upstream) -> None:
    assert len(upstream.requests) == 1
    assert Completion.objects.count() == 1


@pytest.fixture
def remote(bench: Bench) -> Bench:
    """A playground whose network will be cut."""
    bench.network_fails = True
    return bench


def test_a_reload_in_the_middle_loses_nothing(upstream: Upstream, bench: Bench) -> None:
    go_on = upstream.says(BEFORE, AFTER)
    bench.ask("Go on")
    bench.wait_text("👍🏽")
    bench.page.reload()
    bench.wait_text("👍🏽")
    assert bench.reply().get_attribute("data-state") == "streaming"
    go_on()
    bench.wait("done")
    assert bench.text() == BEFORE + AFTER
    assert bench.reply().locator(".md").last.inner_text() == BEFORE + AFTER
    assert_one_call(upstream)


def test_an_answer_that_ended_while_the_page_was_away_is_there(upstream: Upstream, bench: Bench) -> None:
    go_on = upstream.says(BEFORE, AFTER)
    bench.ask("Go on")
    bench.wait_text("👍🏽")
    bench.page.goto("/")
    go_on()
    bench.open()
    bench.wait("done")
    assert bench.text() == BEFORE + AFTER
    assert_one_call(upstream)


def test_a_reload_before_the_first_word_loses_nothing(upstream: Upstream, bench: Bench) -> None:
    go_on = upstream.says("", AFTER)
    bench.ask("Think for long")
    upstream.wait_for()
    bench.page.wait_for_function(
        "() => JSON.parse(sessionStorage['llmhub.playground']).turns[0].replies[0].place"
    )
    bench.page.reload()
    bench.wait("waiting")
    go_on()
    bench.wait("done")
    assert bench.text() == AFTER
    assert_one_call(upstream)


def test_a_cut_network_is_told_and_the_rest_comes_when_it_is_back(
    upstream: Upstream, line: Line, remote: Bench
) -> None:
    go_on = upstream.says(BEFORE, AFTER)
    remote.ask("Go on")
    remote.wait_text("👍🏽")
    line.down = True
    line.cut()
    remote.page.wait_for_selector("#notice >> text=The connection is lost.")
    go_on()
    line.down = False
    remote.wait("done")
    assert remote.page.locator("#notice").is_hidden()
    assert remote.text() == BEFORE + AFTER
    assert_one_call(upstream)


def test_a_socket_that_breaks_again_and_again_still_brings_every_byte(
    upstream: Upstream, line: Line, remote: Bench
) -> None:
    upstream.paces(PARTS, 0.003)
    line.most_bytes = 6000
    remote.ask("Tell me a lot")
    remote.wait("done")
    assert remote.text() == "".join(PARTS)
    assert line.sockets >= 5
    assert_one_call(upstream)


def test_a_network_that_only_fell_silent_is_noticed(upstream: Upstream, line: Line, remote: Bench) -> None:
    go_on = upstream.says(BEFORE, AFTER)
    remote.ask("Go on")
    remote.wait_text("👍🏽")
    line.frozen = True  # as when a laptop changes networks: nobody says that the socket is dead
    remote.page.evaluate("() => { dispatchEvent(new Event('online')); }")
    remote.page.wait_for_selector("#notice >> text=The connection is lost.")
    go_on()
    line.frozen = False
    remote.wait("done")
    assert remote.text() == BEFORE + AFTER
    assert_one_call(upstream)


def test_offline_and_back(upstream: Upstream, line: Line, remote: Bench) -> None:
    go_on = upstream.says(BEFORE, AFTER)
    remote.ask("Go on")
    remote.wait_text("👍🏽")
    remote.page.context.set_offline(True)
    line.cut()
    remote.page.wait_for_selector("#notice >> text=The connection is lost.")
    go_on()
    remote.page.context.set_offline(False)
    remote.wait("done")
    assert remote.text() == BEFORE + AFTER
    assert_one_call(upstream)


def test_what_is_asked_offline_is_sent_once_the_network_is_back(upstream: Upstream, remote: Bench) -> None:
    upstream.says("Here I am.")
    remote.page.context.set_offline(True)
    remote.ask("Are you there?")
    remote.page.wait_for_selector("#notice >> text=The question is sent as soon as it can.")
    assert not upstream.requests
    remote.page.context.set_offline(False)
    remote.wait("done")
    assert remote.text() == "Here I am."
    assert_one_call(upstream)


def test_an_answer_that_is_stopped_without_a_network_is_stopped_at_the_hub_too(
    upstream: Upstream, line: Line, remote: Bench
) -> None:
    upstream.says(BEFORE, AFTER)
    remote.ask("Go on")
    remote.wait_text("👍🏽")
    line.down = True
    line.cut()
    remote.page.wait_for_selector("#notice >> text=The connection is lost.")
    remote.page.keyboard.press("Escape")
    remote.wait("stopped")
    line.down = False
    assert upstream.requests[0].wait_gone()
    assert remote.text() == BEFORE


def test_what_was_said_is_kept_once_however_often_it_was_asked_again(
    upstream: Upstream, bench: Bench
) -> None:
    """Each request repeats all before it: a long conversation would soon be too long for the browser."""
    questions = [f"Question {number}" for number in range(3)]
    for question in questions:
        upstream.clear()
        upstream.says(f"On {question}.")
        bench.ask(question)
        bench.wait_text(f"On {question}.")
        bench.wait("done")
    bench.kept()
    text = bench.page.evaluate("sessionStorage.getItem('llmhub.playground')")
    assert text.count('"Question 0"') == 2  # the message, and what the requests share

    bench.page.reload()
    bench.wait_text("On Question 2.")
    request = json.loads(bench.code("Request"))
    assert [message["content"] for message in request["messages"] if message["role"] == "user"] == questions
