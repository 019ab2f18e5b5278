"""Pictures of the playground: what is there to be seen, and the way through it."""

from decimal import Decimal
from typing import Any

from tests.browser.scripts import pictured
from tests.fakes import FakeUpstream


def sample_models(upstream: FakeUpstream) -> None:
    """A provider of three priced models that answer at `upstream`."""
    from providers.models import LanguageModel, LLMProvider, ModelPrice

    provider = LLMProvider.objects.create(
        slug="together", name="Together", type="openai_compatible", base_url=upstream.url,
        default_model="qwen3-235b", priority=1,
    )  # fmt: skip
    prices = {
        "qwen3-235b": ("0.9", "3.6"),
        "llama-4-maverick": ("0.27", "0.85"),
        "mistral-medium": ("0.4", "2"),
    }
    for name, (prompt, completion) in prices.items():
        model = LanguageModel.objects.create(
            provider=provider,
            name=name,
            context_window=131_072,
            max_output=16_384,
            capabilities=["chat", "tools"],
        )
        ModelPrice.objects.create(model=model, prompt=Decimal(prompt), completion=Decimal(completion))


def sample_project(user: Any, spent_cents: int, slug: str, name: str) -> Any:
    """A project of the person's with five dollars a day, of which so much is spent."""
    from completions.admin.standing import current_span
    from completions.models import Budget, BudgetWindow, Project

    project = Project.objects.create(slug=slug, name=name)
    project.members.add(user)
    budget = Budget.objects.create(project=project, amount=5, period="day")
    span = current_span(budget)
    BudgetWindow.objects.create(
        budget=budget, starts_at=span.start, ends_at=span.end, spent_nano=spent_cents * 10**7
    )
    return project


def sample_rows(upstream: FakeUpstream) -> None:
    """What `walk` looks at: the models, a project with money left, and one without."""
    from django.contrib.auth.models import User

    upstream.scripts(pictured)
    sample_models(upstream)
    user = User.objects.get()
    sample_project(user, 137, "support", "Support bot")
    sample_project(user, 500, "workshop", "Workshop")


QUESTION = "How do I find the longest word in a text file of 2 GB?"
SLOWLY = "And if the lines are very long? Answer slowly."  # the models stop in the middle, see `pictured`
# Wide enough for two answers beside one another, and still to be read where a page shows it smaller.
SHAPE = {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 1.3}


def walk(album: Any) -> None:
    """Empty, an answer, one that comes in, two and three beside one another, what can go wrong."""
    album.goto("/playground/")
    album.page.wait_for_selector(".examples")
    album.still("playground-empty")
    one_answer(album)
    lost_network(album)
    call_as_code(album)
    beside_one_another(album)
    if album.page.locator("#open-settings").is_visible():
        album.page.click("#open-settings")
        album.still("playground-settings")
        album.page.click("#close-settings")
    spent_budget(album)


def ask(album: Any, question: str, answers: int, state: str = "done") -> None:
    """Ask, and wait for so many answers of the newest question."""
    album.page.fill("#draft", question)
    album.page.click("#send")
    album.page.locator(f".turn:last-child .reply[data-state={state}]").nth(answers - 1).wait_for()


def tidy(album: Any) -> None:
    """From the top, without what is only passing."""
    album.page.evaluate("""() => {
        document.querySelector("#scroll").scrollTop = 0;
        document.querySelector("#toast").hidden = true;
        document.activeElement.blur();
    }""")
    album.page.mouse.move(640, 5)
    album.page.wait_for_timeout(200)  # what was hovered fades
    album.page.evaluate("() => { document.querySelector('#latest').hidden = true; }")


def one_answer(album: Any) -> None:
    ask(album, QUESTION, 1)
    tidy(album)
    album.still("playground")


def lost_network(album: Any) -> None:
    page = album.page
    ask(album, SLOWLY, 1, "streaming")
    page.locator(".turn:last-child .block").wait_for()
    album.still("playground-streaming")
    page.context.set_offline(True)
    page.wait_for_selector("#notice:not([hidden])")
    album.still("playground-lost")
    page.context.set_offline(False)
    page.wait_for_selector("#notice", state="hidden")
    page.keyboard.press("Escape")
    page.wait_for_selector(".reply[data-state=stopped]")
    album.still("playground-stopped")


def call_as_code(album: Any) -> None:
    album.page.locator("[aria-label='Request, response and code']").first.click()
    album.page.click("role=tab[name=Python]")
    album.still("playground-code")
    album.page.keyboard.press("Escape")


def beside_one_another(album: Any) -> None:
    page = album.page
    page.click("#clear")
    page.click("#compare")
    page.select_option(".pane:nth-child(2) select", "llama-4-maverick")
    ask(album, QUESTION, 2)
    tidy(album)
    album.still("playground-compare")
    page.click("#compare")
    page.select_option(".pane:nth-child(3) select", "mistral-medium")
    ask(album, QUESTION, 3)
    page.wait_for_timeout(200)
    album.still("playground-three")


def spent_budget(album: Any) -> None:
    page = album.page
    page.click("#clear")
    page.select_option("#project select", "workshop")
    page.wait_for_selector("#budget[data-level=spent]")
    for _ in range(2):
        page.locator(".pane-row button").last.click()
    ask(album, QUESTION, 1, "failed")
    page.click("#budget summary")
    tidy(album)
    album.still("playground-budget-spent")
