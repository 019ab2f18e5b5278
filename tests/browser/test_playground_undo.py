"""What is removed or changed can be had back, and nothing else is lost by it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.bench import Bench
from tests.browser.conftest import MODEL
from tests.browser.scripts import Upstream

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def says(upstream: Upstream, *parts: str) -> Callable[[], None]:
    """The next answer, whatever was said before."""
    upstream.clear()
    return upstream.says(*parts)


def act(bench: Bench, at: int, name: str) -> None:
    message = bench.page.locator(".message").nth(at)
    message.hover()
    message.get_by_role("button", name=name).click()


def questions(bench: Bench) -> list[str]:
    return list(bench.page.locator(".said-text").all_inner_texts())


def change(bench: Bench, at: int, text: str) -> Any:
    """Edit a message; gives the field."""
    act(bench, at, "Edit the message")
    field = bench.page.locator(".editor textarea")
    field.fill(text)
    return field


@pytest.fixture
def asked(upstream: Upstream, bench: Bench) -> Bench:
    """Two questions with their answers."""
    for question in ("First", "Second"):
        says(upstream, f"On {question}.")
        bench.ask(question)
        bench.wait_text(f"On {question}.")
        bench.wait("done")
    return bench


def test_what_is_asked_after_a_removal_stays_and_ends_the_undo(upstream: Upstream, asked: Bench) -> None:
    asked.page.click("#clear")
    says(upstream, "Some. ", "More.")
    asked.ask("Third")
    asked.wait_text("Some.")
    assert asked.page.locator("#toast").is_hidden()
    assert questions(asked) == ["Third"]
    asked.page.keyboard.press("Escape")
    asked.wait("stopped")
    assert upstream.requests[-1].wait_gone()


def test_a_closed_pane_ends_the_undo_too(asked: Bench) -> None:
    asked.page.click("#compare")
    asked.page.click("#clear")
    assert asked.page.inner_text("#toast").startswith("Conversation cleared")
    asked.page.locator(".pane-row button").first.click()
    assert asked.page.locator("#toast").is_hidden()


def test_a_removed_message_comes_back_to_its_place(asked: Bench) -> None:
    act(asked, 0, "Remove the message and its answers")
    assert questions(asked) == ["Second"]
    asked.page.click("text=Undo")
    assert questions(asked) == ["First", "Second"]
    assert asked.text(0) == "On First."


def test_removing_a_message_stops_its_own_answer_alone(upstream: Upstream, asked: Bench) -> None:
    go_on = says(upstream, "Some. ", "And the rest.")
    asked.ask("Third")
    asked.wait_text("Some.")
    act(asked, 0, "Remove the message and its answers")
    assert questions(asked) == ["Second", "Third"]
    assert asked.reply().get_attribute("data-state") == "streaming"
    go_on()
    asked.wait("done")
    assert asked.text() == "Some. And the rest."
    says(upstream, "Never ", "read.")
    asked.ask("Fourth")
    asked.wait_text("Never")
    act(asked, 2, "Remove the message and its answers")
    assert upstream.requests[-1].wait_gone()


@pytest.mark.parametrize("button", [True, False])
def test_to_ask_a_changed_message_again_can_be_undone(upstream: Upstream, asked: Bench, button: bool) -> None:
    says(upstream, "Other. ", "More.")
    field = change(asked, 0, "Changed")
    if button:
        asked.page.click("text=Save and ask again")
    else:
        field.press("Control+Enter")
    asked.wait_text("Other.")
    assert questions(asked) == ["Changed"]
    assert "those after it removed" in asked.page.inner_text("#toast")
    asked.page.click("text=Undo")
    assert questions(asked) == ["First", "Second"]
    assert upstream.requests[-1].wait_gone()
    assert [reply["text"] for reply in asked.kept()] == ["On First.", "On Second."]


def test_a_wrong_setting_does_not_cost_what_was_edited(upstream: Upstream, asked: Bench) -> None:
    asked.page.click("#more summary")
    asked.page.fill("#extra", "{")
    field = change(asked, 1, "A long text, written with care")
    asked.page.click("text=Save and ask again")
    assert asked.page.evaluate("document.activeElement.id") == "extra"
    assert field.input_value() == "A long text, written with care"
    asked.page.fill("#extra", "")
    says(upstream, "It was worth it.")
    asked.page.click("text=Save and ask again")
    asked.wait_text("It was worth it.")
    assert questions(asked) == ["First", "A long text, written with care"]
    assert len(upstream.requests) == 3
    assert upstream.requests[-1].body["model"] == MODEL
