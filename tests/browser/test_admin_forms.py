"""What the admin's small scripts do in a real browser."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from completions.models import Completion
from providers.models import Health, LLMProvider
from tests.conftest import LiveHub
from tests.factories import PASSWORD, make_key, make_provider, make_staff

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

OpenAdmin = Callable[[], AbstractContextManager[Any]]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture
def admin_page(live_hub: LiveHub, chromium: str) -> OpenAdmin:
    """Opens a browser, signed in as a superuser. The ORM refuses to work in this thread while it is open."""
    from playwright.sync_api import sync_playwright

    make_staff()

    @contextmanager
    def opened() -> Iterator[Any]:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(base_url=live_hub.url)
            page.set_default_timeout(15_000)
            page.goto("/admin/")
            page.fill("[name=username]", "ada")
            page.fill("[name=password]", PASSWORD)
            page.click("[type=submit]")
            page.wait_for_url("**/admin/")
            yield page
            browser.close()

    return opened


def test_choosing_a_vendor_fills_the_form_and_what_was_typed_stays(admin_page: OpenAdmin) -> None:
    with admin_page() as page:
        page.goto("/admin/providers/llmprovider/add/")
        page.select_option("[name=preset]", "gemini")
        assert page.input_value("[name=slug]") == "gemini"
        page.select_option("[name=preset]", "mistral")
        assert page.input_value("[name=type]") == "openai_compatible"
        assert page.input_value("[name=base_url]") == "https://api.mistral.ai/v1"
        assert page.input_value("[name=slug]") == "mistral"
        example = page.input_value("[name=models-0-name]")
        assert example.startswith("mistral-")
        assert page.input_value("[name=default_model]") == example
        page.fill("[name=name]", "Our own Mistral")
        page.select_option("[name=preset]", "groq")
        assert page.input_value("[name=name]") == "Our own Mistral"


def test_test_connection_is_one_click_that_posts(admin_page: OpenAdmin) -> None:
    provider = make_provider(slug="demo")
    with admin_page() as page:
        page.goto(f"/admin/providers/llmprovider/{provider.pk}/change/")
        page.click("text=Test connection")
        page.wait_for_selector("text=/Connected in \\d+ ms/")
        assert page.url.endswith("/change/")
    assert LLMProvider.objects.get().health == Health.OK


def test_a_new_key_can_be_copied_and_makes_the_first_call(admin_page: OpenAdmin, live_hub: LiveHub) -> None:
    make_provider(slug="demo")
    project = make_key()[0].project
    with admin_page() as page:
        page.goto(f"/admin/completions/apikey/add/?project={project.pk}")
        page.fill("[name=name]", "laptop")
        page.click("[name=_save]")
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_hub.url)
        page.wait_for_load_state()  # until then nothing listens to a click
        page.click("[data-copy=full-key]")
        page.wait_for_selector('text="Copied"')  # and not: I have copied it
        key = page.evaluate("navigator.clipboard.readText()")
        answer = page.request.post(
            "/api/completions/",
            headers={"Authorization": f"Bearer {key}"},
            data={"messages": [{"role": "user", "content": "Hello"}]},
        )
        assert answer.status == 200
        assert answer.json()["content"]
    assert Completion.objects.get().project_id == project.pk
