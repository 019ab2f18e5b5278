"""The playground in a real browser: asking, stopping, comparing, and what it keeps."""

from typing import Any

import pytest

from completions.models import Completion, Project, State
from providers.models import LanguageModel, LLMProvider
from tests.browser.bench import Bench
from tests.browser.conftest import MODEL, OpenBench
from tests.browser.scripts import Upstream
from tests.factories import make_project, make_provider

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def told(upstream: Upstream, at: int = -1) -> list[tuple[str, str]]:
    """The messages of a request that the provider got."""
    return [(one["role"], one["content"]) for one in upstream.requests[at].body["messages"]]


def test_an_answer_comes_as_it_is_made_and_says_what_it_took(upstream: Upstream, bench: Bench) -> None:
    go_on = upstream.says("It comes ", "word by word.")
    bench.ask("How does it come?")
    bench.wait_text("It comes")
    assert bench.reply().get_attribute("data-state") == "streaming"
    assert bench.facts()["Cost"].startswith("≈ $0.0000")
    go_on()
    bench.wait("done")
    assert bench.text() == "It comes word by word."
    facts = bench.facts()
    assert facts.pop("First token").endswith("ms")
    facts.pop("Speed", None)  # of a few words it says nothing
    assert facts == {"Tokens": "9 in, 3 out", "Cost": "$0.000015"}
    assert told(upstream) == [("user", "How does it come?")]
    row = Completion.objects.get()
    assert (row.surface, row.state, row.cost_nano_usd) == ("ws", State.OK, 15_000)


def test_the_conversation_goes_on(upstream: Upstream, bench: Bench) -> None:
    upstream.says("First answer.")
    upstream.says("Second answer.")
    bench.ask("First question")
    bench.wait("done")
    bench.ask("Second question")
    bench.wait_text("Second answer.")
    first, second = ("user", "First question"), ("user", "Second question")
    assert told(upstream) == [first, ("assistant", "First answer."), second]


def test_escape_stops_an_answer_and_what_came_is_kept_and_paid_for(upstream: Upstream, bench: Bench) -> None:
    upstream.says("All that came. ", "Never sent.")
    bench.ask("Tell me a lot")
    bench.wait_text("All that came.")
    bench.page.keyboard.press("Escape")
    bench.wait("stopped")
    assert bench.text() == "All that came. "
    assert upstream.requests[0].wait_gone()
    bench.page.wait_for_function("() => !document.querySelector('.facts').textContent.includes('≈')")
    assert bench.facts()["Tokens"].endswith("out")  # as the ledger has it
    row = Completion.objects.get()
    assert row.state == State.CANCELLED
    assert row.usage_source != "provider"
    assert row.cost_nano_usd is not None
    assert bench.facts()["Cost"] == f"${row.cost_nano_usd / 10**9:.6f}"


def test_the_send_button_stops_too(upstream: Upstream, bench: Bench) -> None:
    upstream.says("Some. ", "More.")
    bench.ask("Tell me")
    bench.wait_text("Some.")
    assert bench.page.inner_text("#send") == "Stop"
    bench.page.click("#send")
    bench.wait("stopped")
    assert bench.page.inner_text("#send") == "Send"


@pytest.fixture
def three_models(upstream: Upstream) -> None:
    provider = LLMProvider.objects.get()
    for name in ("second-model", "third-model"):
        LanguageModel.objects.create(provider=provider, name=name)

    def script(request: Any) -> list[Any]:
        asked = request.body["messages"][-1]["content"]
        return upstream.answer_of(f"{request.body['model']} on {asked}.")

    upstream.scripts(script)


def test_three_models_answer_the_same_question_beside_one_another(
    upstream: Upstream, three_models: None, bench: Bench
) -> None:
    bench.page.click("#compare")
    bench.page.click("#compare")
    bench.ask("cats")
    for at, model in enumerate((MODEL, "second-model", "third-model")):
        bench.wait("done", at)
        assert bench.text(at) == f"{model} on cats."
    tops = [bench.reply(at).bounding_box() for at in range(3)]
    assert len({box["y"] for box in tops}) == 1
    assert tops[0]["x"] < tops[1]["x"] < tops[2]["x"]
    assert [told(upstream, at) for at in range(3)] == [[("user", "cats")]] * 3
    bench.ask("dogs")
    bench.wait("done", 5)
    seen = {request.body["model"]: told(upstream, at) for at, request in enumerate(upstream.requests[3:], 3)}
    for model, messages in seen.items():  # each knows its own answer
        assert messages == [("user", "cats"), ("assistant", f"{model} on cats."), ("user", "dogs")]


def test_of_two_that_answer_one_can_be_stopped(upstream: Upstream, three_models: None, bench: Bench) -> None:
    bench.page.click("#compare")
    upstream.clear()
    upstream.says("Here. ", "And done.")
    go_on = upstream.says("There. ", "And done.")
    bench.ask("Both")
    bench.wait_text("ere.", 0)
    bench.wait_text("ere.", 1)
    stopped = 0 if "Here." in bench.reply(0).inner_text() else 1  # which came first is not said
    bench.reply(stopped).get_by_role("button", name="Stop").click()
    bench.wait("stopped", stopped)
    go_on()
    bench.wait("done", 1 - stopped)
    assert [bench.text(stopped), bench.text(1 - stopped)] == ["Here. ", "There. And done."]


def test_the_answer_of_a_model_that_is_asked_no_more_is_asked_of_that_model_again(
    upstream: Upstream, three_models: None, bench: Bench
) -> None:
    for _ in range(2):
        bench.page.click("#compare")
    bench.ask("cats")
    for at in range(3):
        bench.wait("done", at)
    for _ in range(2):  # the first two
        bench.page.locator(".pane-row button").first.click()
    bench.reply(1).get_by_role("button", name="Ask again").click()
    upstream.wait_for(4)
    bench.wait("done", 1)
    assert upstream.requests[3].body["model"] == "second-model"
    answered = [MODEL, "second-model", "third-model"]
    assert [bench.reply(at).locator("h3").first.inner_text() for at in range(3)] == answered
    assert [reply["model"] for reply in bench.kept()] == answered


def test_settings_and_roles_are_sent_and_what_is_left_alone_is_not(upstream: Upstream, bench: Bench) -> None:
    page = bench.page
    page.fill("#system", "Be short.")
    page.fill("#p-temperature", "0.25")
    page.fill("#p-max_tokens", "50")
    page.click("#more summary")
    page.fill("#p-seed", "7")
    page.fill("#p-stop", "END\nSTOP")
    page.fill("#extra", '{"top_k": 40}')
    page.select_option("#role", "assistant")
    bench.write("I was asked before.")
    page.click("#add")
    bench.ask("And now?")
    bench.wait("done")
    body = upstream.requests[0].body
    assert told(upstream) == [
        ("system", "Be short."),
        ("assistant", "I was asked before."),
        ("user", "And now?"),
    ]
    known = {"messages", "stream", "stream_options"}
    assert {name: value for name, value in body.items() if name not in known} == {
        "model": MODEL,
        "temperature": 0.25,
        "max_tokens": 50,
        "seed": 7,
        "stop": ["END", "STOP"],
        "top_k": 40,
    }
    page.click("#reset")
    bench.ask("Again")
    bench.wait("done")
    assert set(upstream.requests[1].body) == known | {"model"}


def test_a_number_out_of_bounds_is_neither_sent_nor_shown_and_broken_json_is_told(
    upstream: Upstream, bench: Bench
) -> None:
    page = bench.page
    page.fill("#p-temperature", "9")
    page.press("#p-temperature", "Tab")
    assert page.input_value("#p-temperature") == "2"
    page.fill("#p-max_tokens", "2.6")
    page.press("#p-max_tokens", "Tab")
    assert page.input_value("#p-max_tokens") == "3"
    page.click("#more summary")
    page.fill("#extra", '{"top_k": ')
    bench.ask("Hello")
    assert page.inner_text("#extra-problem") == "This is not a JSON object."
    assert page.evaluate("document.activeElement.id") == "extra"
    assert page.input_value("#draft") == "Hello"
    page.fill("#extra", "")
    page.click("#send")
    bench.wait("done")
    assert upstream.requests[0].body["temperature"] == 2
    assert upstream.requests[0].body["max_tokens"] == 3
    assert len(upstream.requests) == 1


def test_a_message_can_be_changed_and_asked_again(upstream: Upstream, bench: Bench) -> None:
    for question in ("First", "Second"):
        bench.ask(question)
        bench.wait("done")
    message = bench.page.locator(".message").first
    message.hover()
    message.get_by_role("button", name="Edit the message").click()
    bench.page.get_by_label("Message", exact=True).first.fill("Changed")
    bench.page.click("text=Save and ask again")
    bench.page.wait_for_function("() => document.querySelectorAll('.reply').length === 1")
    bench.wait("done")
    assert told(upstream) == [("user", "Changed")]


def test_what_is_removed_can_be_had_back(bench: Bench) -> None:
    bench.ask("Hello")
    bench.wait("done")
    bench.page.click("#clear")
    assert bench.page.locator(".turn").count() == 0
    bench.page.click("text=Undo")
    assert bench.text() == "Hello!"
    assert bench.reply().inner_text().count("Hello!") == 1


def test_an_answer_can_be_asked_for_again(upstream: Upstream, bench: Bench) -> None:
    upstream.says("Once.")
    upstream.says("Twice.")
    bench.ask("Hello")
    bench.wait("done")
    bench.reply().get_by_role("button", name="Ask again").click()
    bench.wait_text("Twice.")
    bench.wait("done")
    assert [reply["text"] for reply in bench.kept()] == ["Twice."]


def test_what_comes_from_the_cache_says_so_and_asking_again_asks_the_provider(
    upstream: Upstream, bench: Bench
) -> None:
    bench.page.fill("#p-temperature", "0")
    bench.ask("Hello")
    bench.wait("done")
    bench.page.click("#clear")
    bench.ask("Hello")
    bench.wait("done")
    assert bench.facts()["Cache"] == "from the cache"
    assert bench.facts()["Cost"] == "$0"
    assert len(upstream.requests) == 1
    bench.reply().get_by_role("button", name="Ask again").click()
    upstream.wait_for(2)
    bench.wait("done")
    assert "Cache" not in bench.facts()


def test_the_conversation_is_kept_in_the_browser_for_its_person_alone(
    upstream: Upstream, bench: Bench, member: Any
) -> None:
    upstream.says("Kept **here**.")
    bench.ask("Will it be kept?")
    bench.wait("done")
    bench.write("A draft")
    bench.page.fill("#system", "Be kind.")
    other = bench.page.context.new_page()
    bench.page.reload()
    bench.page.wait_for_selector(".reply strong >> text=here")
    assert bench.page.input_value("#draft") == "A draft"
    other.goto("/playground/")
    other.wait_for_selector(".reply strong >> text=here")
    assert other.input_value("#system") == "Be kind."
    other.close()
    bench.page.click("text=Sign out")
    bench.page.wait_for_url("**/")
    assert bench.page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_reasoning_is_shown_while_it_comes_and_folded_away_after(upstream: Upstream, bench: Bench) -> None:
    go_on = upstream.says("", "The answer.", reasoning="Let me think.")
    bench.ask("Think")
    bench.page.wait_for_selector(".reasoning[open] >> text=Let me think.")
    go_on()
    bench.wait("done")
    assert bench.page.locator(".reasoning[open]").count() == 0
    assert bench.text() == "The answer."


def test_tool_calls_are_shown(upstream: Upstream, bench: Bench) -> None:
    upstream.calls_tool("weather", '{"city": ', '"Oslo"}')
    bench.ask("How is the weather?")
    bench.wait("done")
    assert bench.page.inner_text(".calls figcaption") == "Calls weather"
    assert bench.page.inner_text(".calls code") == '{\n  "city": "Oslo"\n}'


def test_models_are_chosen_by_provider(upstream: Upstream, open_bench: OpenBench) -> None:
    make_provider(slug="demo", models=(MODEL, "demo-chat"), priority=900)
    bench = open_bench()
    groups = bench.page.locator("#panes optgroup")
    assert [group.get_attribute("label") for group in groups.all()] == ["Upstream", "Demo"]
    bench.page.select_option("#panes select", f"demo/{MODEL}")  # a name that two have is said in full
    bench.ask("Hello")
    bench.page.wait_for_selector(".reply-provider >> text=Demo")
    bench.page.keyboard.press("Escape")
    bench.wait("stopped")
    assert not upstream.requests


def test_who_is_of_several_projects_chooses_which_pays(bench: Bench, project: Project, member: Any) -> None:
    make_project("zoo", members=(member,))
    bench.page.reload()
    bench.page.select_option("#project select", "zoo")
    bench.page.wait_for_selector("#panes select:not([disabled])")
    bench.ask("Hello")
    bench.wait("done")
    assert Completion.objects.get().project.slug == "zoo"


def test_what_is_written_before_the_scripts_are_there_is_kept(bench: Bench) -> None:
    held: list[Any] = []
    bench.page.route("**/playground/main.js", lambda route: held.append(route))
    bench.page.reload(wait_until="commit")
    bench.write("Written early")
    assert len(held) == 1
    held[0].continue_()
    bench.page.wait_for_selector("#panes select:not([disabled])")
    assert bench.page.input_value("#draft") == "Written early"
    bench.page.wait_for_selector("#send:not([disabled])")


def test_who_opens_it_can_write_at_once(bench: Bench) -> None:
    bench.page.reload()
    bench.page.keyboard.type("Hello")
    assert bench.page.input_value("#draft") == "Hello"
