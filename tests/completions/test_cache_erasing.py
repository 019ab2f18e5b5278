"""Erasing content erases the cached answers in which it would live on."""

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from completions.cache import index, keeping
from completions.cache.erasing import Erased, erase
from completions.cache.erasing import found as would_erase
from completions.content import Scope
from completions.models import ApiKey, CachedResponse, Completion, CompletionContent, Project
from tests.completions.calls import make_call, make_content
from tests.completions.kept import HOUR, found, kept, rows, store
from tests.factories import make_key, make_project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_is_written_by_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)
    yield
    index.forget()


def asked(name: str, *, project: str = "web", end_user: str = "", key: ApiKey | None = None) -> Completion:
    """A call with content whose answer is cached under its name."""
    call = make_call(project=project, end_user=end_user, api_key=key, request_id=name)
    make_content(call)
    one = kept(call.project, name, call=call.pk, api_key_id=key.pk if key else None)
    one.end_user = end_user
    store(one)
    index.flush()
    return call


def hit(call: Completion, **fields: Any) -> Completion:
    """A later call that was given the answer."""
    return make_call(cache="HIT", cached_from=call.pk, **fields)


def left() -> set[str]:
    return set(rows())


def test_of_a_project_all_answers_go_and_no_other_projects() -> None:
    asked("mine")
    asked("other", project="app")

    assert erase(Scope(project="web")) == Erased(contents=1, answers=1)
    assert left() == {"other"}
    assert (found("mine"), found("other") is None) == (None, False)


def test_of_a_key_and_of_an_end_user_their_own_go() -> None:
    key, _ = make_key(make_project("web"))
    asked("by-key", key=key)
    asked("by-user", end_user="u1")
    asked("by-none")

    erase(Scope(api_key=key.pk))
    assert left() == {"by-user", "by-none"}
    erase(Scope(end_user="u1"))
    assert left() == {"by-none"}


@pytest.mark.parametrize("by", ["completions", "request_id"])
def test_of_one_call_its_own_answer_goes(by: str) -> None:
    call = asked("mine")
    asked("other")

    scope = Scope(completions=[call.pk]) if by == "completions" else Scope(request_id="mine")
    assert erase(scope) == Erased(1, 1)
    assert left() == {"other"}


def test_an_answer_goes_that_a_call_was_given_for_the_same_question() -> None:
    first = asked("shared", end_user="u1")
    hit(first, end_user="u2")

    assert erase(Scope(end_user="u2")).answers == 1
    assert left() == set()


def test_before_a_time_the_answers_of_earlier_calls_go() -> None:
    asked("k")
    CachedResponse.objects.update(created_at=timezone.now() - timedelta(days=3))
    Completion.objects.update(created_at=timezone.now() - timedelta(days=3))
    asked("young")

    assert erase(Scope(before=timezone.now() - timedelta(days=1))).answers == 1
    assert left() == {"young"}


def test_answers_go_though_their_calls_were_pruned() -> None:
    asked("k", end_user="u1")
    CompletionContent.objects.all().delete()
    Completion.objects.all().delete()

    assert erase(Scope(end_user="u1")) == Erased(0, 1)


def test_a_pin_keeps_nothing_that_is_erased() -> None:
    asked("k", end_user="u1")
    keeping.pin(rows()["k"])

    erase(Scope(end_user="u1"))
    assert (left(), found()) == (set(), None)


def test_everything_is_everything() -> None:
    asked("a")
    asked("b", project="app")
    assert erase(Scope()) == Erased(2, 2)
    assert left() == set()


def test_a_project_that_is_deleted_takes_its_answers_from_its_group() -> None:
    project = Project.objects.create(slug="brief", name="Brief", cache_group="shop")
    store(kept(project))
    index.flush()
    assert found() is not None

    project.delete()
    assert found() is None


def test_a_project_that_stays_after_all_keeps_its_answers() -> None:
    project = Project.objects.create(slug="brief", name="Brief")
    store(kept(project, "written"))
    index.flush()
    store(kept(project, "waiting"))
    with transaction.atomic():
        project.delete()
        transaction.set_rollback(True)
    index.flush()

    assert rows().keys() == {"written", "waiting"}
    assert found("written") is not None
    assert found("waiting") is not None


def test_the_command_counts_both_and_erases_both() -> None:
    asked("k", end_user="u1")
    out = StringIO()
    call_command("erase_content", "--user", "u1", "--dry-run", stdout=out)
    assert would_erase(Scope(end_user="u1")) == Erased(1, 1)
    call_command("erase_content", "--user", "u1", stdout=out)

    assert out.getvalue().splitlines() == [
        "Dry run: the content of 1 call and 1 cached answer would be erased.",
        "Erased the content of 1 call and 1 cached answer. Their rows in the ledger stay.",
    ]
    assert left() == set()
