"""What a process begins with of what was cached before, and what it forgets when somebody purged."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import OperationalError, connection
from django.utils import timezone

from completions.cache import index, semantic, stores
from completions.cache.entry import packed
from completions.cache.index import entry_of
from completions.cache.memory import MemoryCache
from completions.cache.purge import Selection, purge
from completions.cache.stores import MemoryStore
from completions.models import CachedResponse, Project
from providers import database
from providers.models import RegistryVersion
from tests.completions.kept import HOUR, found, kept, rows, store
from tests.factories import make_project
from tests.fakes import completion

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture(autouse=True)
def nothing_is_written_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)


@pytest.fixture
def memory() -> Iterator[MemoryCache]:
    cache = caches["default"]
    assert isinstance(cache, MemoryCache)
    yield cache
    cache.clear()


# --- the start


def test_a_start_finds_what_was_cached(project: Project, memory: MemoryCache) -> None:
    one = kept(project)
    store(one)
    index.flush()
    memory.clear()

    assert index.load() == 1
    hot = found()
    assert hot is not None
    assert hot._replace(stored=0, fresh_until=0, stale_until=0) == one.entry._replace(
        stored=0, fresh_until=0, stale_until=0
    )
    assert hot.stale_until == pytest.approx(one.entry.stale_until, abs=1e-3)


def test_but_nothing_that_has_expired_unless_it_is_pinned(project: Project, memory: MemoryCache) -> None:
    past = {"fresh_until": time.time() - 20, "stale_until": time.time() - 10}
    store(kept(project, "expired", **past), kept(project, "pinned", **past))
    store(kept(project, "stale", fresh_until=time.time() - 20))
    index.flush()
    CachedResponse.objects.filter(key="pinned").update(pinned=True)
    memory.clear()
    index.load()

    assert found("expired") is None
    hot, stale = found("pinned"), found("stale")
    assert hot is not None
    assert hot.fresh_until > time.time()
    assert stale is not None
    assert stale.fresh_until < time.time() < stale.stale_until


def used(order: list[str]) -> None:
    """Say of rows when they were hit: the first most lately."""
    for age, key in enumerate(order):
        CachedResponse.objects.filter(key=key).update(last_hit_at=timezone.now() - timedelta(minutes=age))


def test_where_there_is_no_room_for_all_it_takes_those_used_last(
    project: Project, memory: MemoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"k{number}" for number in range(6)]
    store(*(kept(project, name) for name in names))
    index.flush()
    used(["k4", "k1", "k3", "k0"])  # the others never
    memory.clear()
    monkeypatch.setattr(memory, "_most", 3 * (len(packed(kept(project, "k0").entry)) + 400))
    assert index.load() == 3

    assert [name for name in names if found(name)] == ["k1", "k3", "k4"]
    assert memory.size <= memory.most


def test_what_was_used_last_is_the_last_to_go(project: Project, memory: MemoryCache) -> None:
    store(kept(project, "old"), kept(project, "new"), kept(project, "mid"))
    index.flush()
    used(["new", "mid", "old"])
    memory.clear()
    index.load()

    assert [name.rpartition(":")[2] for name in memory._shelf.entries] == ["old", "mid", "new"]


def test_an_answer_that_came_meanwhile_stays(project: Project, memory: MemoryCache) -> None:
    store(kept(project))
    index.flush()
    newer = kept(project, body=completion("Newer."))
    stores.put_now([("k", packed(newer.entry), HOUR)])

    assert index.load() == 0
    assert found() == newer.entry


@pytest.mark.parametrize(
    "broken",
    [
        {"response": "{"},
        {"response": "[]"},
        {"response": "{}"},
        {"response": '{"choices": [1]}'},
        {"facts": "{}"},
        {"facts": '{"usage": [], "finish_reason": null}'},
        {"facts": '{"usage": [1, 2], "finish_reason": 5}'},
        {"completion_id": None},
    ],
)
def test_a_row_that_cannot_be_read_is_no_entry_and_no_error(
    project: Project, memory: MemoryCache, broken: dict[str, Any]
) -> None:
    store(kept(project), kept(project, "good"))
    index.flush()
    CachedResponse.objects.filter(key="k").update(**broken)
    memory.clear()

    assert entry_of(rows()["k"]) is None
    assert index.load() == 1
    assert found("good") is not None


# --- purges


def test_a_purge_takes_row_and_entry_also_of_what_was_about_to_be_written(project: Project) -> None:
    store(kept(project, "mine"), kept(make_project("other"), "theirs"))

    assert purge(Selection(project_id=project.pk)) == 1
    assert rows().keys() == {"theirs"}
    assert found("mine") is None
    assert found("theirs") is not None


def test_a_row_is_not_written_after_another_process_purged(project: Project) -> None:
    """It did not see the row, so it could not tell: what waits goes with what is in memory."""
    _look()
    store(kept(project))
    another_process_purged()
    index.flush()

    assert rows() == {}
    assert found() is None
    _look()
    store(kept(project, "later"))
    index.flush()
    assert rows().keys() == {"later"}


async def test_a_purge_by_another_process_empties_the_memory_but_for_what_is_left(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LATEST_SECONDS", 0.0)
    mine = stores.store()
    await sync_to_async(store)(kept(project, "left"), kept(project, "purged"))
    await sync_to_async(index.flush)()
    assert [one is not None for one in await mine.get(["left", "purged"])] == [True, True]

    await CachedResponse.objects.filter(key="purged").adelete()
    await sync_to_async(another_process_purged)()

    left, purged = await mine.get(["left", "purged"])
    assert left is not None
    assert purged is None


async def test_where_purges_cannot_be_looked_up_nothing_is_given(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_to_async(store)(kept(project))
    mine = stores.store()
    assert await mine.get(["k"]) != [None]
    monkeypatch.setattr(stores, "LATEST_SECONDS", 0.0)

    def away(row: int) -> int:
        raise OperationalError("the database is away")

    monkeypatch.setattr(stores, "_purges_counted", lambda: away(0))
    assert await mine.get(["k"]) == [None]
    database.note(away=False)  # as the ledger notes it


async def test_a_purge_of_ones_own_leaves_the_rest_of_the_memory(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what has no row that it could be filled from."""
    monkeypatch.setattr(stores, "LATEST_SECONDS", 0.0)
    mine = stores.store()
    await sync_to_async(store)(kept(project, "purged"), kept(project, "left", public_model="other"))
    await sync_to_async(index.flush)()
    await CachedResponse.objects.filter(key="left").aupdate(response="")
    await mine.get(["left"])
    await sync_to_async(purge)(Selection(model="smart"))

    assert [one is not None for one in await mine.get(["left", "purged"])] == [True, False]


async def test_a_purge_while_it_is_looked_whether_there_was_one_leaves_the_rest_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LATEST_SECONDS", 0.0)
    mine = stores.store()
    await sync_to_async(store)(kept(project, "left", public_model="other"))
    await mine.get(["left"])
    counted = stores._purges_counted

    def purged_meanwhile() -> int:
        monkeypatch.setattr(stores, "_purges_counted", counted)
        purges = counted()
        purge(Selection(model="smart"))
        return purges

    monkeypatch.setattr(stores, "_purges_counted", purged_meanwhile)
    await mine.get(["left"])
    assert [one is not None for one in await mine.get(["left"])] == [True]


async def test_what_another_has_taken_the_place_of_forgets_nothing(project: Project) -> None:
    old = stores.store()
    assert isinstance(old, MemoryStore)
    await old.get(["k"])
    stores.forget()
    await sync_to_async(store)(kept(project))
    new = stores.store()
    await sync_to_async(another_process_purged)()
    await sync_to_async(old._compare)()
    assert await new.get(["k"]) != [None]


@pytest.mark.parametrize(
    "look",
    [lambda: _look(), index.load, lambda: semantic._group("a group")],
    ids=["purges", "start", "vectors"],
)
def test_who_looks_leaves_no_connection_open(project: Project, look: Callable[[], object]) -> None:
    """The threads that look are many, PostgreSQL's connections few."""
    store(kept(project))
    index.flush()
    semantic.forget()
    left_open: list[object] = []

    def work() -> None:
        look()
        left_open.append(connection.connection)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert left_open == [None]


def another_process_purged() -> None:
    RegistryVersion.objects.count_up(stores.VERSION_ROW)


def _look() -> None:
    """As a call does that looks into the cache."""
    made = stores.store()
    assert isinstance(made, MemoryStore)
    made._compare()
