"""The rows of cached answers: written and counted in batches, whatever happens meanwhile."""

import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from completions.cache import index
from completions.cache.index import entry_of, first_words
from completions.models import CachedResponse, Project
from tests.completions.kept import HOUR, found, kept, rows, store
from tests.factories import make_key, make_project
from tests.fakes import completion

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture(autouse=True)
def nothing_is_written_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)


# --- written and counted


def test_a_row_says_what_was_stored(project: Project) -> None:
    key, _ = make_key(project)
    one = kept(project, api_key_id=key.pk)
    store(one)
    assert rows() == {}
    index.flush()

    row = rows()["k"]
    assert (row.project, row.api_key, row.end_user, row.model) == (project, key, "ada", "smart")
    assert (row.upstream_model, row.provider_slug, row.operation) == ("gpt-4o", "acme", "chat")
    assert (row.cost_nano_usd, row.hits, row.pinned) == (500, 0, False)
    assert row.size_bytes == one.size + len(row.request)
    assert (row.completion_id, row.first_words) == (one.entry.call, "question k")
    assert row.expires_at - row.created_at == timedelta(hours=1)


def test_an_entry_is_read_back_from_its_row(project: Project) -> None:
    one = kept(project, stored=1_760_000_000.25, fresh_until=1_760_003_600.5, stale_until=1_760_007_200.0)
    store(one)
    index.flush()

    assert entry_of(rows()["k"]) == one.entry


def test_many_are_written_together(project: Project) -> None:
    store(*(kept(project, f"k{number}") for number in range(250)))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        index.flush()

    assert len(rows()) == 250
    assert sum("INSERT" in query["sql"] for query in queries) <= 15  # SQLite takes few parameters at a time


def test_hits_are_counted_together(project: Project) -> None:
    ones = [kept(project, f"k{number}") for number in range(3)]
    store(*ones)
    for number in range(300):
        index.note_hits([(one.key, one.entry) for one in ones[: 1 + number % 3]])
    with CaptureQueriesContext(connection) as queries:
        index.flush()

    assert [(row.hits, row.saved_nano_usd) for _, row in sorted(rows().items())] == [
        (300, 150_000),
        (200, 100_000),
        (100, 50_000),
    ]
    assert sum(query["sql"].startswith("UPDATE") for query in queries) == 3
    assert all(row.last_hit_at is not None for row in rows().values())


def test_they_are_written_by_themselves(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    written, close = threading.Event(), connections.close_all

    def closed() -> None:
        close()
        written.set()

    monkeypatch.setattr(index, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(connections, "close_all", closed)
    store(kept(project))

    assert written.wait(5)
    assert rows().keys() == {"k"}


def test_threads_that_write_at_once_lose_nothing(project: Project) -> None:
    ones = [kept(project, f"k{number}") for number in range(5)]

    def work(_: int) -> None:
        for one in ones:
            store(one)
            index.note_hits([(one.key, one.entry)])
            index.flush()
        connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    index.flush()

    assert {key: row.hits for key, row in rows().items()} == {f"k{number}": 4 for number in range(5)}


def test_an_answer_that_comes_anew_keeps_the_hits_and_the_pin(project: Project) -> None:
    store(kept(project))
    index.note_hits([("k", kept(project).entry)])
    index.flush()
    CachedResponse.objects.update(pinned=True)
    newer = kept(project, body=completion("Newer."), cost_nano=700, public_model="smarter")
    newer.by_staff = True
    store(newer)
    index.flush()

    row = rows()["k"]
    assert (row.hits, row.pinned, row.cost_nano_usd, row.model) == (1, True, 700, "smarter")
    assert "Newer." in row.response
    hot = found()
    assert hot is not None
    assert hot.fresh_until > hot.stored + 300 * 86_400  # what is pinned stays fresh, anew too


@pytest.mark.parametrize(("by_staff", "with_content"), [(False, True), (False, False), (True, False)])
def test_a_pinned_answer_is_replaced_by_nobody_but_staff_and_keeps_its_content(
    project: Project, by_staff: bool, with_content: bool
) -> None:
    store(kept(project))
    index.flush()
    CachedResponse.objects.update(pinned=True)
    newer = kept(project, body=completion("Newer."), cost_nano=700)
    newer.by_staff, newer.with_content = by_staff, with_content
    store(newer)
    index.flush()

    row = rows()["k"]
    assert (row.pinned, row.cost_nano_usd, row.first_words) == (True, 500, "question k")
    assert "answer of k" in row.response
    hot = found()
    assert hot is not None
    assert (hot.cost_nano, hot.body) == (500, completion("answer of k"))
    assert hot.fresh_until > hot.stored + 300 * 86_400


def test_what_cannot_have_a_row_is_not_given_either(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(rows: object) -> None:
        raise ValueError("whatever")

    monkeypatch.setattr(index, "_write", fails)
    store(kept(project))
    with pytest.raises(ValueError, match="whatever"):
        index.flush()
    assert found() is None


def test_an_answer_of_a_group_is_the_projects_that_brought_it_last(project: Project) -> None:
    other = make_project("other")
    store(kept(project))
    index.flush()
    store(kept(other))
    index.flush()

    assert rows()["k"].project == other


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "a \n b"}]}, "a b"),
        ({"messages": [{"content": [{"type": "text", "text": "Look"}, {"type": "image_url"}, "x"]}]}, "Look"),
        ({"messages": [{"content": None}]}, ""),
        ({"messages": []}, ""),
        ({"prompt": "Once\0 upon"}, "Once upon"),
        ({"input": [1, 2]}, "[1, 2]"),
        ({}, ""),
        ({"prompt": "x" * 999}, "x" * 200),
    ],
)
def test_the_first_words_are_of_what_was_asked_last(asked: dict[str, Any], words: str) -> None:
    assert first_words(asked) == words


# --- what cannot be written


@pytest.mark.sqlite
def test_while_the_database_is_away_rows_and_hits_wait(project: Project) -> None:
    first = kept(project)
    store(first)
    index.note_hits([("k", first.entry)])
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(OperationalError):
                index.flush()
        store(kept(project, "later"), kept(project, body=completion("Newer.")))
        index.note_hits([("k", first.entry)])
    index.flush()

    assert rows().keys() == {"k", "later"}
    assert (rows()["k"].hits, rows()["k"].saved_nano_usd) == (2, 1000)
    assert "Newer." in rows()["k"].response
    connection.close()


def test_an_answer_that_comes_after_its_project_was_deleted_goes_alone(project: Project) -> None:
    gone = make_project("gone")
    theirs = kept(gone, "theirs")
    gone.delete()
    store(kept(project, "first"), theirs, kept(project, "last"))
    index.note_hits([("first", theirs.entry)])
    index.flush()

    assert rows().keys() == {"first", "last"}
    assert rows()["first"].hits == 1
    assert found("first") is not None
    assert found("theirs") is None  # what has no row could not be purged


def test_a_project_goes_while_a_flush_waits_for_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flush waits for the transaction in which the project goes, which must not wait for the flush."""
    writes, write = threading.Event(), index._write

    def told(rows: list[index.Kept]) -> None:
        writes.set()
        write(rows)

    monkeypatch.setattr(index, "_write", told)
    store(kept(project))
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=project.pk)
            flushed = pool.submit(index._flush_in_thread)
            assert writes.wait(10)
            began = time.monotonic()
            project.delete()
            took = time.monotonic() - began
        flushed.result(10)

    assert took < 4  # SQLite gives the other up after 5
    assert rows() == {}


def test_no_row_comes_to_a_project_that_goes(project: Project) -> None:
    """It would keep the project from going."""
    store(kept(project))
    with ThreadPoolExecutor(1) as pool:
        flushes: list[Future[None]] = []

        def flush_before(execute: Any, sql: str, *how: Any) -> Any:
            if sql.startswith('DELETE FROM "completions_project" '):
                flushes.append(pool.submit(index._flush_in_thread))
                wait(flushes, timeout=0.5)
            return execute(sql, *how)

        with connection.execute_wrapper(flush_before):
            project.delete()
        [flushed] = flushes
        flushed.result(10)

    assert rows() == {}
    assert not Project.objects.filter(slug=project.slug).exists()


def test_also_where_there_is_no_other(project: Project) -> None:
    gone = make_project("gone")
    theirs = kept(gone, "theirs")
    gone.delete()
    store(theirs)
    index.note_hits([("theirs", theirs.entry)])
    index.flush()

    assert rows() == {}
    assert found("theirs") is None


def test_without_its_content_a_row_holds_no_word_of_it(project: Project) -> None:
    one = kept(project)
    one.with_content = False
    store(one)
    index.flush()

    row = rows()["k"]
    assert (row.request, row.response, row.first_words) == ("", "", "")
    assert (row.cost_nano_usd, row.size_bytes) == (500, one.size)
    assert entry_of(row) is None
    assert found() == one.entry


def test_times_of_rows_are_those_of_the_entry(project: Project) -> None:
    one = kept(project, stored=1_760_000_000.0, fresh_until=1_760_000_060.0, stale_until=1_760_000_120.0)
    store(one)
    index.flush()

    row = rows()["k"]
    assert row.created_at == datetime.fromtimestamp(1_760_000_000, UTC)
    assert (row.expires_at - row.created_at, row.is_expired) == (timedelta(minutes=1), True)
