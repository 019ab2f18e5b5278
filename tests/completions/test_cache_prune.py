"""Retention of what is cached: what is over goes, what is too much goes, and what is pinned stays."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache as django_cache
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from completions import jobs, prune
from completions.cache import index, keeping, retention
from completions.errors import InvalidRequestError
from completions.models import CachedResponse, Project
from tests.completions.kept import HOUR, found, kept, rows, store
from tests.factories import make_project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)
    monkeypatch.setattr(retention, "REST_SECONDS", 0)
    yield
    index.forget()


def cached(project: Project, *keys: str, **changes: Any) -> None:
    """Answers with their rows."""
    store(*(kept(project, key, **changes) for key in keys))
    index.flush()


def over(project: Project, *keys: str) -> None:
    """Answers whose time is over, though they still lie in the hot store."""
    cached(project, *keys)
    past = timezone.now() - timedelta(seconds=1)
    CachedResponse.objects.filter(key__in=keys).update(expires_at=past, stale_until=past)


def run() -> prune.Pruned:
    return sum(prune.prune(), start=prune.Pruned())


def sizes(**bytes_of: int) -> None:
    for key, size in bytes_of.items():
        CachedResponse.objects.filter(key=key).update(size_bytes=size)


def used(**hours_ago: float) -> None:
    for key, hours in hours_ago.items():
        at = timezone.now() - timedelta(hours=hours)
        CachedResponse.objects.filter(key=key).update(last_hit_at=at)


def test_an_answer_goes_when_it_is_not_even_stale_any_more(project: Project) -> None:
    over(project, "old")
    cached(project, "young")
    CachedResponse.objects.filter(key="young").update(expires_at=timezone.now())  # stale, and still given

    assert run() == prune.Pruned(answers=1)
    assert rows().keys() == {"young"}
    assert (found("old"), found("young") is None) == (None, False)
    assert run() == prune.Pruned()


def test_a_pinned_answer_stays_though_its_time_is_over(project: Project) -> None:
    over(project, "old")
    keeping.pin(rows()["old"])

    assert run() == prune.Pruned()
    assert found("old") is not None


def test_above_the_bytes_there_may_be_the_longest_unused_go(project: Project, settings: Settings) -> None:
    cached(project, "a", "b", "c", "d")
    sizes(a=400, b=400, c=400, d=400)
    used(a=1, b=3, d=2)  # c was never hit, and is stored just now
    settings.LLMHUB_CACHE_STORED_BYTES = 900

    assert run() == prune.Pruned(answers=2)
    assert rows().keys() == {"a", "c"}
    assert (found("b"), found("d")) == (None, None)
    assert found("a") is not None


def test_a_pinned_answer_stays_though_there_is_too_much(project: Project, settings: Settings) -> None:
    cached(project, "a", "b")
    sizes(a=400, b=400)
    used(a=9, b=1)
    keeping.pin(rows()["a"])
    settings.LLMHUB_CACHE_STORED_BYTES = 500

    run()
    assert rows().keys() == {"a"}


def test_many_go_in_small_transactions(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    over(project, *"abcde")

    assert [step.answers for step in prune.prune()] == [2, 2, 1]


def test_an_answer_that_is_fetched_anew_meanwhile_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    over(project, "k")
    chosen = [rows()["k"].pk]
    cached(project, "k")  # anew, after it was chosen

    assert retention._delete(retention._expired(), chosen) == 0
    assert found() is not None


def test_a_dry_run_counts_each_answer_once(
    project: Project, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    over(project, "old")
    settings.LLMHUB_CACHE_STORED_BYTES = 1

    call_command("prune", "--dry-run")
    assert "1 cached answers" in capsys.readouterr().out
    assert rows().keys() == {"old"}


def test_the_worker_prunes_the_cache(project: Project) -> None:
    over(project, "old")

    assert jobs.run_due(["prune"]) == ["prune"]
    assert jobs.last_error("prune") == ""
    assert rows() == {}


# --- pins


def test_a_pinned_answer_is_fresh_for_good(project: Project) -> None:
    cached(project, "k")
    keeping.pin(rows()["k"])

    entry = found()
    assert entry is not None
    assert entry.fresh_until > time.time() + 365 * 24 * HOUR
    assert rows()["k"].pinned


def test_a_pinned_answer_that_staff_fetch_anew_stays_pinned(project: Project) -> None:
    cached(project, "k")
    keeping.pin(rows()["k"])
    anew = kept(project, "k", cost_nano=7)
    anew.by_staff = True
    store(anew)
    index.flush()

    entry = found()
    assert entry is not None
    assert (entry.cost_nano, rows()["k"].pinned) == (7, True)
    assert entry.fresh_until > time.time() + 365 * 24 * HOUR


def test_an_answer_whose_content_is_not_kept_cannot_be_pinned(project: Project) -> None:
    one = kept(project)
    one.with_content = False
    store(one)
    index.flush()

    with pytest.raises(InvalidRequestError, match="keeps no content"):
        keeping.pin(rows()["k"])
    assert not rows()["k"].pinned


def test_an_answer_that_is_unpinned_has_the_rest_of_its_time(project: Project) -> None:
    cached(project, "k")
    before = found()
    keeping.pin(rows()["k"])
    keeping.unpin(rows()["k"])

    after = found()
    assert before is not None
    assert after is not None
    assert after.fresh_until == pytest.approx(before.fresh_until, abs=0.001)
    assert after.stale_until == pytest.approx(before.stale_until, abs=0.001)
    assert not rows()["k"].pinned


def test_an_answer_that_is_unpinned_too_late_is_given_no_more(project: Project) -> None:
    over(project, "k")
    keeping.pin(rows()["k"])
    keeping.unpin(rows()["k"])

    assert found() is None
    assert run() == prune.Pruned(answers=1)


def test_pinned_answers_that_the_hot_store_lost_are_put_back(project: Project) -> None:
    cached(project, "pinned", "other")
    keeping.pin(rows()["pinned"])
    django_cache.clear()  # it began anew

    run()
    assert found("pinned") is not None
    assert found("other") is None
    assert keeping.restore() == 0
