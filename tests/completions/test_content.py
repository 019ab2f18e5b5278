"""Prompts and answers: written, erased by whom they belong to, and never the money with them."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from completions.content import Scope, erase, expires_at
from completions.ledger.sql import json_text
from completions.models import Attempt, Completion, CompletionContent, State
from tests.completions.calls import COST, make_attempt, make_call, make_content
from tests.factories import make_key, make_project

pytestmark = pytest.mark.django_db


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("erase_content", *arguments, stdout=out)
    return out.getvalue().strip()


def kept() -> set[Any]:
    return set(CompletionContent.objects.values_list("pk", flat=True))


def with_content(**fields: Any) -> Completion:
    call = make_call(**fields)
    make_content(call)
    return call


@pytest.mark.parametrize("text", ["Grüße 👋", "a\x00b", "half a pair \ud83d", "</script><b>"])
def test_a_request_is_stored_as_json_whatever_it_says(text: str) -> None:
    stored = json_text({"messages": [{"role": "user", "content": text}], "seed": 2**70})
    assert stored is not None
    assert json.loads(stored)["messages"][0]["content"] == text
    assert "\x00" not in stored
    stored.encode()


def test_content_expires_after_the_days_of_its_project() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    assert expires_at(30, now) == datetime(2026, 12, 1, tzinfo=UTC)


def test_erasing_takes_the_content_and_leaves_the_money() -> None:
    call = with_content()
    before = Completion.objects.filter(pk=call.pk).values().get()
    assert erase(Scope()) == 1
    assert kept() == set()
    assert Completion.objects.filter(pk=call.pk).values().get() == before


def test_erasing_blanks_the_messages_in_which_an_upstream_may_quote_the_prompt() -> None:
    """Also of a call whose content was never kept, and of an attempt before one that answered."""
    said = "upstream said: cannot answer 'my secret prompt'"
    refused = make_call(state=State.UPSTREAM_ERROR, error_code="upstream_refused", error_message=said)
    make_attempt(refused, error_code="upstream_refused", error_message=said, status=400)
    answered = with_content(end_user="u1")
    make_attempt(answered, error_message=said)
    other = make_call(project="other", error_message=said)
    make_attempt(other, error_message=said)

    assert erase(Scope(project="web"), batch=1) == 1
    for model in (Completion, Attempt):
        assert model.objects.filter(error_message=said).count() == 1
    assert Completion.objects.get(error_message=said) == other
    assert Completion.objects.get(pk=refused.pk).error_code == "upstream_refused"
    assert Attempt.objects.get(completion=refused).status == 400
    assert Attempt.objects.get(completion=refused).cost_nano_usd == COST


def test_messages_are_blanked_of_the_calls_that_were_named() -> None:
    calls = [make_call(error_message="it said"), make_call(error_message="it said")]
    for call in calls:
        make_attempt(call, error_message="it said")
    erase(Scope(completions=[calls[0].pk]))
    assert Completion.objects.exclude(error_message="").get() == calls[1]
    assert Attempt.objects.exclude(error_message="").get().completion == calls[1]


def test_erasing_goes_batch_by_batch_to_the_end() -> None:
    for _ in range(5):
        with_content()
    assert erase(Scope(), batch=2) == 5
    assert kept() == set()


def test_a_scope_is_a_project_a_key_an_end_user_a_request_or_a_time() -> None:
    key, _ = make_key(make_project("shop"))
    old = datetime(2026, 1, 1, tzinfo=UTC)
    calls = {
        "project": with_content(project="other"),
        "key": with_content(api_key=key),
        "user": with_content(end_user="u1"),
        "request": with_content(request_id="order-1"),
        "old": with_content(moment=old),
    }
    scopes = {
        "project": Scope(project="other"),
        "key": Scope(api_key=key.pk),
        "user": Scope(end_user="u1"),
        "request": Scope(request_id="order-1"),
        "old": Scope(before=old + timedelta(days=1)),
    }
    for name, scope in scopes.items():
        assert [row.pk for row in scope.rows()] == [calls[name].pk], name
    assert [row.pk for row in Scope(completions=[calls["user"].pk]).rows()] == [calls["user"].pk]
    assert not Scope(project="web", end_user="nobody").rows().exists()


def test_filters_of_the_command_must_all_fit() -> None:
    both = with_content(end_user="u1")
    user = with_content(end_user="u1", project="other")
    assert command("--project", "web", "--user", "u1", "--dry-run") == (
        "Dry run: the content of 1 call and 0 cached answers would be erased."
    )
    assert kept() == {both.pk, user.pk}
    assert command("--project", "web", "--user", "u1").startswith(
        "Erased the content of 1 call and 0 cached answers."
    )
    assert kept() == {user.pk}


def test_the_command_takes_keys_and_requests_by_any_of_their_names() -> None:
    key, _ = make_key()
    with_content(api_key=key)
    with_content(request_id="order-1")
    by_id = with_content()
    assert "1 call and" in command("--key", key.public_id, "--dry-run")
    assert "1 call and" in command("--key", str(key.pk), "--dry-run")
    assert "2 calls and" in command("--request", "order-1", "--request", str(by_id.pk), "--dry-run")


def test_everything_goes_only_when_it_is_asked_for_in_so_many_words() -> None:
    with_content()
    for arguments in ([], ["--all", "--user", "u1"]):
        with pytest.raises(CommandError, match="Say whose content"):
            command(*arguments)
    assert len(kept()) == 1
    command("--all")
    assert kept() == set()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--project", "none"], "there is no project 'none'"),
        (["--key", "none"], "there is no key 'none'"),
        (["--user", ""], "--user is empty"),
        (["--before", "yesterday"], "Write 2026-11-01"),
    ],
)
def test_a_wrong_filter_is_named(arguments: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        command(*arguments)


def test_before_a_day_means_before_its_midnight() -> None:
    today = timezone.localdate()
    with_content()
    assert "of 0 calls" in command("--before", today.isoformat(), "--dry-run")
    assert "of 1 call " in command("--before", (today + timedelta(days=1)).isoformat(), "--dry-run")
