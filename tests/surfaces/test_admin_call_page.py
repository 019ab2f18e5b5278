"""The page of one call: attempts, the arithmetic of its cost, prompt and answer; and erasing those."""

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from completions.models import Adjustment, Completion, CompletionContent, State
from tests.completions.calls import COST, UNPRICED, make_attempt, make_call, make_content
from tests.factories import make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
LIST = "/admin/completions/completion/"


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


def sign_in(client: Client, *permissions: str) -> None:
    user = make_staff("clerk")
    user.is_superuser = False
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user, backend=BACKEND)


def page(browser: Client, call: Completion) -> Any:
    answer = browser.get(reverse("admin:completions_completion_change", args=[call.pk]))
    assert answer.status_code == 200
    return answer


def words(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", answer.text))


def selected(*calls: Completion, **fields: str) -> dict[str, Any]:
    return {"action": "erase_selected", "_selected_action": [str(call.pk) for call in calls], **fields}


def test_the_arithmetic_of_the_cost_is_shown_line_by_line(ada: Client) -> None:
    told = words(page(ada, make_call()))
    assert "Prompt 10 $2.50 $0.000025" in told
    assert "Answer 5 $10.00 $0.00005" in told
    assert "Sum $0.000075 Cost as booked $0.000075" in told
    assert "Cost now" not in told


def test_corrections_lead_from_the_booked_cost_to_the_current_one(ada: Client) -> None:
    call = make_call()
    Adjustment.objects.create(
        completion=call, kind="reprice", amount_nano=-5_000, reason="the prices of its day changed",
        price_source="override 2026-11-02", created_at=timezone.now(),
    )  # fmt: skip
    told = words(page(ada, call))
    assert "the prices of its day changed (override 2026-11-02) −$0.000005 Cost now $0.00007" in told
    assert "$0.00007" in ada.get(LIST).text
    assert Completion.objects.get().cost_nano_usd == COST


def test_every_attempt_is_shown_with_its_outcome(ada: Client) -> None:
    call = make_call(attempts=2)
    make_attempt(
        call, 1, provider_slug="west", state=State.UPSTREAM_ERROR, status=503, error_code="overloaded",
        error_message="Try later.", prompt_tokens=None, completion_tokens=None, cost_nano_usd=0,
    )  # fmt: skip
    make_attempt(call, 2, started_ms=870)
    told = words(page(ada, call))
    assert "1 west test-model Upstream error overloaded: Try later. (HTTP 503) 0 ms 100 ms - $0.00" in told
    assert "2 upstream test-model OK 870 ms 100 ms 10 → 5 $0.000075" in told


def test_an_unpriced_call_says_that_no_price_was_known(ada: Client) -> None:
    told = words(page(ada, make_call(**UNPRICED)))
    assert "No price was known. Cost as booked Unpriced" in told


def test_prompt_and_answer_are_text_and_never_html(ada: Client) -> None:
    call = make_call()
    image = {"type": "image_url", "image_url": {"url": "https://evil.example/pixel.png"}}
    asked = {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "<script>alert(1)</script>"}, image]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]}  # fmt: skip
    call_made = {"function": {"name": "find", "arguments": '{"q": "<b>"}'}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call_made]}
    make_content(call, request=json.dumps(asked), response=json.dumps(answer))
    text = page(ada, call).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)" not in text
    assert "<img" not in text.partition('id="content-heading"')[2]
    assert "[image_url, " in text
    assert "tool c1" in text
    assert "<code>find</code>" in text
    assert "{&quot;q&quot;: &quot;&lt;b&gt;&quot;}" in text


@pytest.mark.parametrize("stored", ["", "nonsense", "[]", "null", '{"messages": [1, null, {"content": 5}]}'])
def test_content_of_any_shape_can_be_looked_at(ada: Client, stored: str) -> None:
    call = make_call()
    make_content(call, request=stored, response=stored)
    assert "Prompt and answer" in page(ada, call).text


def test_a_very_long_text_is_cut_on_the_page(ada: Client) -> None:
    call = make_call()
    asked = {"messages": [{"role": "user", "content": "x" * 60_000}]}
    make_content(call, request=json.dumps(asked))
    assert "… 10,000 more characters" in page(ada, call).text


def test_content_is_for_who_may_view_it_alone(client: Client) -> None:
    call = make_call()
    make_content(call)
    sign_in(client, "view_completion")
    assert "Hello!" not in page(client, call).text
    assert "Erase content" not in page(client, call).text
    assert client.post(LIST, selected(call, confirmed="yes")).status_code in (200, 302)
    assert CompletionContent.objects.exists()
    url = reverse("admin:completions_completion_erase_content", args=[call.pk])
    assert client.post(url).status_code == 403


def test_the_content_of_one_call_is_erased_after_a_question(ada: Client) -> None:
    call = make_call()
    make_content(call)
    url = reverse("admin:completions_completion_erase_content", args=[call.pk])
    assert 'method="post"' in ada.get(url).text
    assert CompletionContent.objects.exists()
    assert "are erased. Tokens and cost stay." in ada.post(url, follow=True).text
    assert not CompletionContent.objects.exists()
    assert Completion.objects.get().cost_nano_usd == COST
    assert LogEntry.objects.get().change_message == "Erased the content."
    assert "There was no content" in ada.post(url, follow=True).text


def test_the_content_of_many_calls_is_erased_after_a_question(ada: Client) -> None:
    first, second, bare, other = (make_call() for _ in range(4))
    for call in (first, second, other):
        make_content(call)
    asked = ada.post(LIST, selected(first, second, bare))
    assert "2 calls with content" in asked.text
    assert CompletionContent.objects.count() == 3
    ada.post(LIST, selected(first, second, confirmed="yes"))
    assert [row.pk for row in CompletionContent.objects.all()] == [other.pk]
    assert LogEntry.objects.count() == 2
    assert "None of these calls have content" in ada.post(LIST, selected(bare), follow=True).text


def test_calls_without_a_price_can_be_listed(ada: Client) -> None:
    make_call()
    unpriced = make_call(**UNPRICED)
    shown = ada.get(LIST, {"price": "unknown"}).context["cl"].result_list
    assert [row.pk for row in shown] == [unpriced.pk]
