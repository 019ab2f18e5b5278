"""llmhub-client.js in somebody else's page: the example of docs/streaming.md, on another origin."""

import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.urls import path

from completions.models import Completion, Project, State
from tests.browser.bench import Watched
from tests.browser.line import Line
from tests.browser.scripts import Upstream
from tests.factories import make_key

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

Run = Callable[[str], Any]
SET_UP = """async (url) => {
    Object.assign(globalThis, await import(`${url}/static/completions/llmhub-client.js`));
    const headers = { "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value };
    const ticket = async () => (await (await fetch("/ticket/", { method: "POST", headers })).json()).ticket;
    globalThis.make = (options) => new LLMHub({ url, ticket, ...options });
    globalThis.hub = make();
    globalThis.ask = { model: "test-model", messages: [{ role: "user", content: "Hello" }] };
    globalThis.told = [];
    const note = (name) => (...facts) => told.push([name, ...facts]);
    const kinds = ["Started", "Token", "Reasoning", "ToolCalls", "Usage", "Done", "Error", "Cancelled"];
    globalThis.all = Object.fromEntries(kinds.map((kind) => [`on${kind}`, note(`on${kind}`)]));
    globalThis.first = (name) => new Promise((resolve) => {
        const look = () => (told.some(([one]) => one === name) ? resolve() : setTimeout(look, 5));
        look();
    });
}"""


@pytest.fixture
def example(
    repository: Path, project: Project, line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """The module of the documentation's views, with addresses; its template is in a folder."""
    from llmhub import urls

    monkeypatch.setenv("LLMHUB_URL", line.url)
    monkeypatch.setenv("LLMHUB_KEY", make_key(project)[1])
    text = (repository / "docs" / "streaming.md").read_text()
    python, html = (
        re.search(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("python", "html")
    )
    assert python is not None
    assert html is not None
    (tmp_path / "chat.html").write_text(html[1].replace("demo-chat", "test-model"))
    module: Any = types.ModuleType("documented")
    exec(python[1], module.__dict__)  # noqa: S102 - it is what the test is about
    module.urlpatterns = [path("chat/", module.chat), path("ticket/", module.ticket), *urls.urlpatterns]
    monkeypatch.setitem(sys.modules, "documented", module)
    return module


@pytest.fixture
def site(
    example: Any, tmp_path: Path, line: Line, member: Any, open_page: Callable[..., Any], settings: Any
) -> Iterator[Watched]:
    """The example in a browser. It comes from `localhost`; its hub is at 127.0.0.1."""
    settings.TEMPLATES = [{**one, "DIRS": [tmp_path, *one["DIRS"]]} for one in settings.TEMPLATES]
    settings.ROOT_URLCONF = example.__name__
    page = open_page(member, line.url.replace("127.0.0.1", "localhost"))
    watched = Watched(page, {f"127.0.0.1:{line.port}", f"localhost:{line.port}"})
    page.goto("/chat/")
    yield watched
    watched.leave()
    assert watched.problems == []


@pytest.fixture
def run(site: Watched, line: Line) -> Run:
    """Runs the body of an async function in the page, with what SET_UP made."""
    site.page.evaluate(SET_UP, line.url)
    return lambda body: site.page.evaluate(f"async () => {{ {body} }}")


def test_the_example_of_the_documentation_streams_and_survives_a_cut(
    site: Watched, line: Line, upstream: Upstream
) -> None:
    go_on = upstream.says("It comes ", "whole.")
    site.page.fill("[name=question]", "Does it come?")
    site.page.click("button")
    site.page.wait_for_selector("#answer >> text=It comes")
    site.network_fails = True
    line.cut()
    go_on()
    site.page.wait_for_selector("#answer >> text=It comes whole.")
    row = Completion.objects.get()
    assert (row.surface, row.api_key and row.api_key.name) == ("ws", "test key")
    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "Does it come?"}]


def test_who_asks_twice_gets_the_second_answer_alone(site: Watched, upstream: Upstream) -> None:
    go_on = upstream.says("The first ", "goes on.")
    upstream.says("The second.")
    site.page.fill("[name=question]", "One?")
    site.page.click("button")
    site.page.wait_for_selector("#answer >> text=The first")
    site.page.fill("[name=question]", "Two?")
    site.page.click("button")
    site.page.wait_for_selector("#answer >> text=The second.")
    go_on()
    assert upstream.requests[0].wait_gone()
    assert site.page.inner_text("#answer") == "The second."


def test_the_code_that_the_playground_shows_for_a_browser_runs_beside_the_documented_views(
    site: Watched, line: Line, upstream: Upstream
) -> None:
    upstream.says("It ran.")
    code = site.page.evaluate(
        """async (hub) => {
            const { browser } = await import("/static/completions/playground/snippets.js");
            const messages = [{ role: "user", content: "Does it run?" }];
            return browser({ model: "test-model", messages }, hub);
        }""",
        line.url,
    )
    site.page.add_script_tag(content=code, type="module")
    site.page.wait_for_function("() => document.body.textContent.includes('It ran.')")
    assert upstream.requests[0].body["messages"] == [{"role": "user", "content": "Does it run?"}]


def test_every_handler_hears_its_part_and_the_promise_all_of_it(run: Run, upstream: Upstream) -> None:
    upstream.says("One two.", reasoning="Hm.")
    result = run("return await hub.stream(ask, all)")
    told = run("return told")
    names = [name for name, *_ in told]
    assert names == sorted(names, key=["onStarted", "onReasoning", "onToken", "onUsage", "onDone"].index)
    assert [told[0][1][name] for name in ("model", "provider")] == ["test-model", "upstream"]
    assert "".join(piece for name, piece, *_ in told if name == "onToken") == "One two."
    assert [whole for name, *_, whole in told if name == "onToken"][-1] == "One two."
    assert told[-1][1] == result
    assert (result["text"], result["reasoning"], result["finish_reason"]) == ("One two.", "Hm.", "stop")
    assert (result["usage"]["total_tokens"], result["usage"]["cost_usd"]) == (12, "0.000015")
    assert result["cancelled"] is False


def test_tool_calls_are_put_together(run: Run, upstream: Upstream) -> None:
    upstream.calls_tool("weather", '{"city": ', '"Oslo"}')
    result = run("return await hub.stream(ask, all)")
    [call] = result["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert (call["id"], result["finish_reason"]) == ("call_1", "tool_calls")


def test_what_is_cancelled_resolves_with_what_came(run: Run, upstream: Upstream) -> None:
    upstream.says("Some. ", "More.")
    result = run("""
        const answer = hub.stream(ask, all);
        await first("onToken");
        answer.cancel();
        return await answer;
    """)
    assert (result["text"], result["cancelled"]) == ("Some. ", True)
    assert run("return told.at(-1)[0]") == "onCancelled"
    assert upstream.requests[0].wait_gone()


def test_an_abort_signal_cancels_and_rejects(run: Run, upstream: Upstream) -> None:
    upstream.says("Some. ", "More.")
    name = run("""
        const control = new AbortController();
        const answer = hub.stream(ask, { ...all, signal: control.signal });
        await first("onToken");
        control.abort();
        return await answer.catch((error) => error.name);
    """)
    assert name == "AbortError"
    assert upstream.requests[0].wait_gone()
    assert (
        run("return await hub.stream(ask, { signal: AbortSignal.abort() }).catch(({ name }) => name)") == name
    )
    assert len(upstream.requests) == 1


def test_a_refusal_rejects_with_the_hubs_code_and_is_told(run: Run, upstream: Upstream) -> None:
    caught = run("""
        const answer = hub.stream({ ...ask, model: "gone" });
        return await answer.catch(({ name, code, param, message }) => [name, code, param, message]);
    """)
    assert caught[:3] == ["LLMHubError", "model_not_found", "model"]
    assert "'gone' does not exist" in caught[3]
    upstream.cuts(after=2)
    told = run("hub.stream(ask, all); await first('onError'); return told.at(-1)[1].result.text")
    assert told == "piece0 piece1 "  # and nobody complains of a promise that was left alone


def test_answers_share_a_socket_and_one_handlers_fault_is_nobody_elses(
    run: Run, site: Watched, line: Line, upstream: Upstream
) -> None:
    upstream.says("Same.")
    with site.page.expect_event("pageerror"):
        texts = run("""
            const fault = { onToken() { throw new Error("of this page"); } };
            const all = [hub.stream(ask, fault), hub.stream(ask), hub.stream(ask)];
            return (await Promise.all(all)).map(({ text }) => text);
        """)
    assert texts == ["Same."] * 3
    assert line.sockets == 1
    assert set(site.problems) == {"error: of this page"}
    site.problems.clear()


def test_another_page_goes_on_where_the_first_one_was(
    run: Run, site: Watched, line: Line, upstream: Upstream
) -> None:
    go_on = upstream.says("First, ", "second.")
    place = run("globalThis.answer = hub.stream(ask, all); await first('onToken'); return answer.place()")
    assert place["text"] == "First, "
    site.page.reload()
    site.page.evaluate(SET_UP, line.url)
    go_on()
    result = site.page.evaluate("(place) => hub.resume(place, all)", place)
    assert result["text"] == "First, second."
    assert (
        run("return told.filter(([name]) => name === 'onToken').map(([, piece]) => piece).join('')")
        == "second."
    )
    assert len(upstream.requests) == 1
    known = run(
        "return await hub.resume({ id: 'x', stream: 'f'.repeat(32), seq: 3 }).catch(({ code }) => code)"
    )
    assert known == "stream_lost"


def test_a_ticket_that_is_no_good_is_not_tried_for_ever(run: Run, line: Line, upstream: Upstream) -> None:
    refused = run(
        "return await make({ ticket: async () => 'made-up' }).stream(ask).catch(({ code }) => code)"
    )
    assert refused == "not_authenticated"
    assert line.sockets == 2
    own = "async () => { throw new LLMHubError('permission_denied', 'Not you.'); }"
    assert (
        run(f"return await make({{ ticket: {own} }}).stream(ask).catch(({{ message }}) => message)")
        == "Not you."
    )
    assert not upstream.requests


def test_a_request_that_is_too_large_never_leaves(run: Run, line: Line) -> None:
    large = run("return await hub.stream({ ...ask, user: 'x'.repeat(1 << 20) }).catch(({ code }) => code)")
    assert large == "request_too_large"
    assert line.sockets == 0


def test_a_closed_client_says_so(run: Run, upstream: Upstream) -> None:
    upstream.says("Some. ", "More.")
    code = run("""
        const answer = hub.stream(ask, all);
        await first("onToken");
        hub.close();
        return await answer.catch(({ code }) => code);
    """)
    assert code == "connection_failed"


def test_the_state_of_the_connection_is_told(run: Run, site: Watched, line: Line, upstream: Upstream) -> None:
    go_on = upstream.says("Some. ", "More.")
    site.network_fails = True
    run("""
        globalThis.states = [];
        hub = make({ onConnection: ({ state }) => states.push(state) });
        globalThis.answer = hub.stream(ask, all);
        await first("onToken");
    """)
    line.cut()
    go_on()
    run("await answer; hub.close()")
    assert run("return states") == ["connecting", "open", "waiting", "connecting", "open", "closed"]
    assert Completion.objects.get().state == State.OK
