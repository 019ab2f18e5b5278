"""The admin's page of running calls in a real browser: it keeps itself up to date, and ends calls."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from completions.models import Completion, State
from tests.browser.conftest import MODEL
from tests.browser.scripts import Upstream
from tests.conftest import LiveHub
from tests.factories import make_key, make_project, make_staff
from tests.fakes import End, chunk

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGE = "/admin/completions/completion/running/"
HELLO = [{"role": "user", "content": "Hello"}]


class Calls:
    """Calls that run for as long as the test wants."""

    def __init__(self, hub: LiveHub) -> None:
        self.url = f"{hub.url}/v1/chat/completions"
        _, self.key = make_key(make_project("shop"))
        self.made: list[requests.Response] = []

    def begin(self) -> Completion:
        body = {"model": MODEL, "messages": HELLO, "stream": True}
        headers = {"Authorization": f"Bearer {self.key}"}
        made = requests.post(self.url, json=body, headers=headers, stream=True, timeout=20)
        assert made.raw.readline()
        self.made.append(made)
        return Completion.objects.filter(state=State.RUNNING).latest("created_at")

    def end(self) -> None:
        for made in self.made:
            made.close()


@pytest.fixture
def calls(hub: LiveHub, upstream: Upstream) -> Iterator[Calls]:
    upstream.events(chunk({"content": "word " * 8}), end=End.HOLD)
    made = Calls(hub)
    yield made
    made.end()


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    made = open_page(make_staff())
    made.set_default_timeout(10_000)
    made.goto(PAGE)
    return made


def test_it_shows_what_begins_and_ends_without_a_reload(page: Any, calls: Calls) -> None:
    page.wait_for_selector("text=No call runs at the moment.")
    page.evaluate("window.same = true")

    call = calls.begin()

    row = page.wait_for_selector(f"#call-{call.pk}")
    assert "Answering" in row.inner_text()
    assert "≈ 10" in row.inner_text()
    assert page.inner_text("#running-count") == "1 call runs now."
    calls.end()
    page.wait_for_selector("text=No call runs at the moment.")
    assert page.evaluate("window.same")


def test_a_call_is_ended_without_leaving_it(page: Any, calls: Calls) -> None:
    call, other = calls.begin(), calls.begin()
    page.wait_for_selector(f"#call-{other.pk}")
    asked: list[str] = []

    def accept(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.once("dialog", accept)

    page.click(f"#call-{call.pk} .hub-end")

    page.wait_for_selector(f"text={MODEL} for Shop was cancelled.")
    page.wait_for_selector(f"#call-{call.pk}", state="detached")
    assert f"End the call to {MODEL} for Shop?" in asked[0]
    assert page.query_selector(f"#call-{other.pk}") is not None
    assert page.url.endswith(PAGE)
    call.refresh_from_db()
    assert call.state == State.CANCELLED


def test_who_thinks_better_of_it_ends_nothing(page: Any, calls: Calls) -> None:
    call = calls.begin()
    page.wait_for_selector(f"#call-{call.pk}")
    page.once("dialog", lambda dialog: dialog.dismiss())

    with page.expect_response(f"**{PAGE}rows/"):
        page.click(f"#call-{call.pk} .hub-end")

    call.refresh_from_db()
    assert call.state == State.RUNNING


def test_it_stands_still_while_it_is_paused(page: Any, calls: Calls) -> None:
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.click("#running-pause")
    page.wait_for_selector("text=Go on")
    asked.clear()

    call = calls.begin()
    page.wait_for_timeout(2500)

    assert asked == []
    page.click("#running-pause")
    page.wait_for_selector(f"#call-{call.pk}")


def test_a_hub_that_cannot_be_reached_is_said_so_and_what_is_shown_stays(
    page: Any, calls: Calls, line: Any
) -> None:
    call = calls.begin()
    page.wait_for_selector(f"#call-{call.pk}")

    line.down = True
    line.cut()

    page.wait_for_selector("text=The hub cannot be reached: this is as of")
    assert page.query_selector(f"#call-{call.pk}") is not None
    line.down = False
    page.wait_for_selector("#running-told", state="hidden")
