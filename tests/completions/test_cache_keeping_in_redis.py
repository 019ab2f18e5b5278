"""Pins, retention and purges where answers lie in Redis; and what is said while it is away."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from completions import jobs, prune  # noqa: F401 - registers the job
from completions.cache import index, keeping, purges, stores
from completions.cache.entry import Entry, unpacked
from completions.cache.purge import Selection, purge
from completions.errors import UnavailableError
from completions.models import CachedResponse, Project
from llmhub import environment
from tests.completions.kept import HOUR, kept, rows, store
from tests.factories import make_project, make_staff

pytestmark = pytest.mark.django_db(transaction=True)

Use = Callable[[str], None]


@pytest.fixture
def use(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Lets the hub keep its answers in the Redis of a URL, under a name of its own."""
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)
    prefix = f"test-{uuid.uuid4().hex}"

    def by(url: str) -> None:
        settings.CACHES = {"default": environment.cache(url, 0) | {"KEY_PREFIX": prefix}}

    yield by
    index.forget()


@pytest.fixture
def in_redis(use: Use, redis_url: str) -> Iterator[None]:
    use(redis_url)
    yield
    client = stores._client()
    for name in client.scan_iter(f"{stores._name('')}*"):
        client.delete(name)


@pytest.fixture
def project() -> Project:
    return make_project()


def found(key: str = "k") -> Entry | None:
    return unpacked(stores._client().get(stores._name(stores.PREFIX + key)))


def cached(project: Project, *keys: str) -> None:
    store(*(kept(project, key) for key in keys))
    index.flush()


@pytest.mark.redis
@pytest.mark.usefixtures("in_redis")
class TestInRedis:
    def test_a_pin_lasts_and_ends(self, project: Project) -> None:
        cached(project, "k")
        keeping.pin(rows()["k"])
        entry = found()
        assert entry is not None
        assert entry.fresh_until > time.time() + 365 * 24 * HOUR

        keeping.unpin(rows()["k"])
        entry = found()
        assert entry is not None
        assert entry.fresh_until < time.time() + 2 * HOUR

    def test_a_pinned_answer_that_redis_lost_is_put_back(self, project: Project) -> None:
        cached(project, "pinned", "other")
        keeping.pin(rows()["pinned"])
        stores.drop_now(["pinned", "other"])

        assert jobs.run_due(["prune"]) == ["prune"]
        assert jobs.last_error("prune") == ""
        assert (found("pinned") is None, found("other")) == (False, None)

    def test_a_purge_takes_rows_and_answers(self, project: Project) -> None:
        cached(project, "a", "b")

        assert purge(Selection(project_id=project.pk)) == 2
        assert (found("a"), found("b"), rows()) == (None, None, {})

    def test_a_purge_means_what_has_no_row_for_as_long_as_it_could_be_given(self, project: Project) -> None:
        stores.tell_purge({"project_id": project.pk})
        client, name = stores._client(), stores._name(stores.PURGES)
        assert client.ttl(name) == -1  # it does not end

    def test_purges_are_remembered_in_a_bounded_list_that_forgets_none(self) -> None:
        for number in range(3 * purges.MOST_PURGES):
            stores.tell_purge({"project_id": number})
            stores.tell_purge({"project_id": number})  # once more: one entry
        told = purges.purges_of(stores._client().get(stores._name(stores.PURGES)))
        assert told is not None
        assert len(told) <= purges.MOST_PURGES + 1
        before_all = min(one["at"] for one in told) - 1
        entry = kept(make_project("any"), stored=before_all).entry
        assert all(
            purges.is_purged("k", entry._replace(project_id=number), told)
            for number in range(3 * purges.MOST_PURGES)
        )
        newest = entry._replace(stored=time.time() + 1)
        assert not purges.is_purged("k", newest, told)

    def test_a_purge_of_everything_takes_the_place_of_those_before(self, project: Project) -> None:
        stores.tell_purge({"project_id": project.pk})
        stores.tell_purge({})
        told = purges.purges_of(stores._client().get(stores._name(stores.PURGES)))
        assert told is not None
        assert [one.keys() for one in told] == [{"at"}]


class TestAway:
    @pytest.fixture(autouse=True)
    def _answer(self, project: Project, use: Use) -> None:
        """One that is cached, before Redis went away."""
        cached(project, "k")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        use(f"redis://127.0.0.1:{port}/0")

    def test_a_purge_fails_and_leaves_the_row_to_be_purged_again(self, project: Project) -> None:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            purge(Selection(project_id=project.pk))
        with pytest.raises(CommandError, match="cannot be reached"):
            call_command("cache_purge", "--all")
        assert rows().keys() == {"k"}

    def test_a_project_stays_with_them_and_the_admin_says_why(self, project: Project, client: Client) -> None:
        client.force_login(make_staff())
        pages = "/admin/completions/project/"
        chosen = {"action": "delete_selected", "_selected_action": project.pk, "post": "yes"}
        for url, data in ((f"{pages}{project.pk}/delete/", {"post": "yes"}), (pages, chosen)):
            said = client.post(url, data, follow=True)
            assert said.status_code == 200
            assert "Nothing was deleted. Redis, where cached answers lie, cannot be reached now." in said.text
        assert Project.objects.filter(pk=project.pk).exists()
        assert rows().keys() == {"k"}

    def test_erasing_says_so_and_leaves_contents_too(self) -> None:
        with pytest.raises(CommandError, match="Nothing more was erased, so run it again"):
            call_command("erase_content", "--all")
        assert rows().keys() == {"k"}

    def test_a_purge_of_what_has_no_row_fails_too(self) -> None:
        CachedResponse.objects.all().delete()
        with pytest.raises(UnavailableError, match="cannot be reached"):
            purge(Selection())

    def test_a_pin_fails_and_is_not_noted(self) -> None:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            keeping.pin(rows()["k"])
        assert not rows()["k"].pinned
