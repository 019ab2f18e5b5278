"""A call as JSON and as code: what the page shows to be copied really runs."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from completions.models import Project
from tests.browser.bench import Bench
from tests.browser.line import Line
from tests.browser.scripts import Upstream
from tests.factories import make_key
from tests.outside import NODE, NODE_CLIENTS

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

HARD = """It's "quoted", 'twice'; $HOME `id` \\n \\ %s {braces} </script>
second line\tand a tab, é 漢字 👍🏽 \u2028 end"""
ANSWER = "It ran: é 漢字."
RUN_SECONDS = 30


@pytest.fixture
def asked(upstream: Upstream, bench: Bench) -> Bench:
    """A call with everything that is hard to quote."""
    page = bench.page
    page.fill("#system", HARD)
    page.fill("#p-temperature", "0.5")
    page.select_option("#p-response_format", "json_schema")
    page.click("#more summary")
    page.fill("#p-stop", 'it\'s\n"over"')
    page.fill("#extra", json.dumps({"top_k": 40, "nested": {"yes": True, "no": None, "text": HARD}}))
    upstream.says(ANSWER)
    bench.ask(HARD)
    bench.wait("done")
    return bench


def run(command: list[str], project: Project, **options: Any) -> str:
    environment = {"PATH": os.environ["PATH"], "LLMHUB_KEY": make_key(project)[1], "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=RUN_SECONDS, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_asked_the_same(upstream: Upstream) -> None:
    first, second = (request.body for request in upstream.requests)
    assert second == first


def test_the_curl_line_runs(asked: Bench, upstream: Upstream, project: Project) -> None:
    said = run(["bash", "-c", asked.code("curl")], project)
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == ANSWER
    assert_asked_the_same(upstream)


def test_the_curl_line_of_a_long_conversation_runs(
    bench: Bench, upstream: Upstream, project: Project
) -> None:
    upstream.says(ANSWER)
    bench.ask(HARD + " long" * 40_000 + "\nEOF\n")  # an argument holds 128 KiB
    bench.wait("done")
    assert ANSWER.split()[0] in run(["bash"], project, input=bench.code("curl"))
    assert_asked_the_same(upstream)


def test_a_stream_it_is_whatever_the_settings_say(bench: Bench, upstream: Upstream, project: Project) -> None:
    bench.page.click("#more summary")
    bench.page.fill("#extra", '{"stream": false, "top_k": 40}')
    upstream.says(ANSWER)
    bench.ask("Hello")
    bench.wait("done")
    assert run([sys.executable, "-c", bench.code("Python")], project) == ANSWER
    assert upstream.requests[0].body["top_k"] == 40
    assert_asked_the_same(upstream)


def test_the_python_code_runs(asked: Bench, upstream: Upstream, project: Project) -> None:
    assert run([sys.executable, "-c", asked.code("Python")], project) == ANSWER
    assert_asked_the_same(upstream)


@pytest.mark.node
def test_the_javascript_code_runs(asked: Bench, upstream: Upstream, project: Project) -> None:
    code = asked.code("JavaScript")
    assert run([NODE, "--input-type=module", "-e", code], project, cwd=NODE_CLIENTS) == ANSWER
    assert_asked_the_same(upstream)


def test_request_and_response_are_shown_as_json_and_no_key_anywhere(asked: Bench, upstream: Upstream) -> None:
    request = json.loads(asked.code("Request"))
    assert request["messages"] == upstream.requests[0].body["messages"]
    assert request["top_k"] == 40
    answer = json.loads(asked.code("Response"))
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ANSWER}
    assert answer["usage"]["cost_usd"] == "0.000015"
    assert (answer["provider"], answer["model"]) == ("upstream", "test-model")
    for view in ("curl", "Python", "JavaScript", "Browser"):
        code = asked.code(view)
        assert "sk-llmhub" not in code
        assert ("LLMHUB_KEY" in code) == (view != "Browser")


def test_what_is_shown_can_be_copied(asked: Bench, line: Line) -> None:
    asked.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=line.url)
    asked.reply().get_by_role("button", name="Request, response and code").click()
    asked.page.get_by_role("tab", name="curl").click()
    asked.page.click(".inspector-body .tool")
    asked.page.wait_for_selector(".inspector-body >> text=Copied")
    copied = asked.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == asked.page.text_content("#inspector-text")
    asked.page.keyboard.press("Escape")
    asked.reply().get_by_role("button", name="Copy the answer").click()
    asked.page.wait_for_function(f"() => navigator.clipboard.readText().then((text) => text === {ANSWER!r})")
