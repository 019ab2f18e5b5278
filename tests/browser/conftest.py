"""A browser for each file of tests, a hub with one model behind it, and the playground of a person."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from completions import live
from completions.models import Project
from providers.models import ModelPrice
from tests.browser.bench import FLAGS, Bench
from tests.browser.line import Line
from tests.browser.scripts import Upstream
from tests.conftest import LiveHub
from tests.factories import make_project, make_provider
from tests.outside import CHROMIUM

MODEL = "test-model"
EMPTY = "/static/completions/favicon.svg"  # a page of the hub that does nothing
OpenBench = Callable[..., Bench]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium. Mark the tests `browser`."""
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop running in this thread, and the ORM would refuse to work beside it.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def upstream(transactional_db: None) -> Iterator[Upstream]:
    """What is behind MODEL."""
    with Upstream() as upstream:
        provider = make_provider(upstream_url=upstream.url, models=(MODEL,))
        ModelPrice.objects.create(model=provider.models.get(), prompt=1, completion=2)
        yield upstream


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that runs for one test need not tidy the heap: it takes longer than the rest of the test."""
    from llmhub import lifespan

    start = tuple(step for step in lifespan.START if step.__name__ != "_freeze_heap")
    monkeypatch.setattr(lifespan, "START", start)


@pytest.fixture
def hub(live_hub: LiveHub, settings: Any) -> Iterator[LiveHub]:
    """The hub; what a test leaves running ends with it."""
    settings.LLMHUB_STREAM_GRACE_SECONDS = 20.0
    yield live_hub
    live.forget()


@pytest.fixture(scope="module")
def module_line() -> Iterator[Line]:
    with Line() as line:
        yield line


@pytest.fixture
def line(module_line: Line, hub: LiveHub) -> Line:
    """What is between browser and hub. Its address stays the same, so that the browser's cache is of use."""
    module_line.lead_to(hub)
    return module_line


@pytest.fixture
def member(transactional_db: None) -> Any:
    """Somebody who may use the project `web`, and nothing else."""
    user = get_user_model().objects.create_user("grace")
    make_project(members=(user,))
    return user


@pytest.fixture
def project(member: Any) -> Project:
    return Project.objects.get()


@pytest.fixture(scope="module")
def module_tab(browser: Any, module_line: Line) -> Iterator[Any]:
    context = browser.new_context(base_url=module_line.url)
    yield context.new_page()
    context.close()


@pytest.fixture
def tab(module_tab: Any, line: Line) -> Iterator[Any]:
    """A tab of a browser as new, but for its cache: to open another takes longer than most tests."""
    yield module_tab
    context = module_tab.context
    context.set_offline(False)
    context.clear_permissions()
    module_tab.unroute_all(behavior="ignoreErrors")
    line.lead_to(line.hub)
    for page in context.pages:
        if page is not module_tab:
            page.close()
    module_tab.goto(EMPTY)
    module_tab.evaluate("() => { sessionStorage.clear(); localStorage.clear(); }")
    context.clear_cookies()


@pytest.fixture
def open_page(browser: Any, tab: Any, line: Line) -> Iterator[Callable[..., Any]]:
    """A page where `user` is signed in: the tab, or with `options` one of a browser of its own."""
    made = []

    def make(user: Any = None, url: str = line.url, **options: Any) -> Any:
        page = tab
        if options or url != line.url:
            page = browser.new_page(base_url=url, **options)
            made.append(page)
        if user is not None:
            client = Client()
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
            session = client.cookies["sessionid"].value
            page.context.add_cookies([{"name": "sessionid", "value": session, "url": url}])
        return page

    yield make
    for page in made:
        page.context.close()


@pytest.fixture
def open_bench(
    open_page: Callable[..., Any], line: Line, upstream: Upstream, member: Any
) -> Iterator[OpenBench]:
    """Opens the playground; at the end nothing may have gone wrong in any."""
    made: list[Bench] = []

    def make(*, wait: bool = True, **options: Any) -> Bench:
        made.append(Bench(open_page(member, **options), {urlsplit(line.url).netloc}))
        return made[-1].open(wait=wait)

    yield make
    upstream.release()
    for bench in made:
        bench.leave()
    assert [problem for bench in made for problem in bench.problems] == []


@pytest.fixture
def bench(open_bench: OpenBench) -> Bench:
    return open_bench()
