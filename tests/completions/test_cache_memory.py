"""Django's cache in this process's memory: what Django promises of any cache, and a bound in bytes."""

import pickle
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from completions.cache import memory
from completions.cache.memory import OVERHEAD_BYTES, MemoryCache


class Clock:
    """What the cache takes for the monotonic time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(memory, "time", made)
    return made


def make(most: int = 1 << 20, **params: Any) -> MemoryCache:
    """A cache of its own."""
    return MemoryCache(f"test {uuid.uuid4().hex}", {"OPTIONS": {"MOST_BYTES": most}, **params})


@pytest.fixture(autouse=True)
def _own_shelves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test makes is left, and the hub's own cache is left as it is."""
    monkeypatch.setattr(MemoryCache, "shelves", {})


@pytest.fixture
def cache() -> MemoryCache:
    return make()


# --- what Django promises


@pytest.mark.parametrize("value", [b"bytes", "text", 7, None, [1, {"a": 2.5}], {"deep": (1, 2)}, True, b""])
def test_what_is_set_can_be_got(cache: MemoryCache, value: Any) -> None:
    cache.set("k", value)

    assert cache.get("k", "default") == value
    assert type(cache.get("k")) is type(value)


def test_what_is_not_there_is_the_default(cache: MemoryCache) -> None:
    assert cache.get("k") is None
    assert cache.get("k", "default") == "default"
    assert "k" not in cache


def test_nobody_shares_a_value_with_the_cache(cache: MemoryCache) -> None:
    mine = ["a"]
    cache.set("k", mine)
    mine.append("b")
    cache.get("k").append("c")

    assert cache.get("k") == ["a"]


def test_what_cannot_be_kept_leaves_all_as_it_was(cache: MemoryCache) -> None:
    cache.set("k", "old")
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        cache.set("k", threading.Lock())

    assert cache.get("k") == "old"


def test_add_sets_only_what_is_not_there(cache: MemoryCache) -> None:
    assert cache.add("k", 1) is True
    assert cache.add("k", 2) is False
    assert cache.get("k") == 1


def test_delete_says_whether_it_was_there(cache: MemoryCache) -> None:
    cache.set("k", 1)

    assert (cache.delete("k"), cache.delete("k")) == (True, False)
    assert not cache.has_key("k")


def test_a_number_is_counted(cache: MemoryCache) -> None:
    cache.set("k", 1)

    assert (cache.incr("k"), cache.incr("k", 10), cache.decr("k", 2)) == (2, 12, 10)
    with pytest.raises(ValueError):
        cache.incr("missing")


def test_counting_leaves_the_time_as_it_was(cache: MemoryCache, clock: Clock) -> None:
    cache.set("k", 1, 10)
    clock.now += 9
    cache.incr("k")
    assert cache.get("k") == 2

    clock.now += 1
    assert cache.get("k") is None
    with pytest.raises(ValueError):
        cache.incr("k")


def test_many_at_once(cache: MemoryCache) -> None:
    assert cache.set_many({"a": 1, "b": 2, "c": 3}) == []
    cache.delete_many(["a", "missing"])

    assert cache.get_many(["a", "b", "c", "d"]) == {"b": 2, "c": 3}
    assert cache.get_or_set("b", 9) == 2
    assert cache.get_or_set("d", lambda: 4) == 4


def test_versions_are_apart(cache: MemoryCache) -> None:
    cache.set("k", "one")
    cache.set("k", "two", version=2)

    assert (cache.get("k"), cache.get("k", version=2), cache.get("k", version=3)) == ("one", "two", None)
    assert cache.incr_version("k", 2) == 3
    assert (cache.get("k"), cache.get("k", version=3)) == (None, "one")
    cache.delete("k", version=2)
    assert cache.get("k", version=2) is None


def test_prefixes_are_apart() -> None:
    place = f"test {uuid.uuid4().hex}"
    one, other = (MemoryCache(place, {"KEY_PREFIX": prefix}) for prefix in ("one", "other"))
    one.set("k", 1)

    assert (one.get("k"), other.get("k")) == (1, None)


def test_instances_of_one_place_are_one_cache() -> None:
    """Django makes one for each thread."""
    place = f"test {uuid.uuid4().hex}"
    MemoryCache(place, {}).set("k", 1)

    assert MemoryCache(place, {}).get("k") == 1
    assert make().get("k") is None


def test_clear_takes_everything(cache: MemoryCache) -> None:
    cache.set_many({"a": 1, "b": b"2"})
    cache.clear()

    assert cache.get_many(["a", "b"]) == {}
    assert cache.size == 0


@pytest.mark.parametrize("key", ["answer:1", "answer:"])
def test_clear_prefix_takes_what_begins_so(cache: MemoryCache, key: str) -> None:
    cache.set_many({key: 1, "other:answer:": 2, "answe": 3})
    cache.clear_prefix("answer:")

    assert cache.get_many([key, "other:answer:", "answe"]) == {"other:answer:": 2, "answe": 3}


async def test_coroutines_have_the_same(cache: MemoryCache) -> None:
    await cache.aset("k", 1)
    assert await cache.aadd("k", 2) is False
    assert await cache.aincr("k") == 2
    assert await cache.aget_many(["k", "l"]) == {"k": 2}
    assert await cache.atouch("k", 10) is True
    assert await cache.ahas_key("k") is True
    assert await cache.aget_or_set("l", 3) == 3
    assert await cache.adelete("k") is True
    await cache.aclear()
    assert await cache.aget("l", 0) == 0


def test_it_is_what_the_hub_uses_without_redis() -> None:
    assert isinstance(caches["default"], MemoryCache)


# --- time


@pytest.mark.parametrize("seconds", [0, -1, -0.5])
def test_what_has_no_time_is_not_there(cache: MemoryCache, clock: Clock, seconds: float) -> None:
    cache.set("k", 1, seconds)
    assert cache.get("k") is None

    cache.set("k", 1)
    assert cache.touch("k", seconds) is True
    assert not cache.has_key("k")
    assert cache.add("k", 2) is True


def test_what_is_set_without_end_stays(cache: MemoryCache, clock: Clock) -> None:
    cache.set("k", 1, None)
    clock.now += 1e9

    assert cache.get("k") == 1


def test_by_default_it_stays_for_as_long_as_the_settings_say(clock: Clock) -> None:
    usual, short = make(), make(TIMEOUT=5)
    for each in (usual, short):
        each.set("k", 1)

    clock.now += 5
    assert (usual.get("k"), short.get("k")) == (1, None)
    clock.now += 295
    assert usual.get("k") is None


def test_touch_gives_it_more_time(cache: MemoryCache, clock: Clock) -> None:
    cache.set("k", 1, 10)
    clock.now += 9
    assert cache.touch("k", 10) is True
    clock.now += 9
    assert cache.get("k") == 1
    clock.now += 1
    assert cache.touch("k", 10) is False


def test_what_has_ended_takes_no_room_once_it_was_looked_for(cache: MemoryCache, clock: Clock) -> None:
    cache.set("k", b"x" * 1000, 1)
    clock.now += 1
    cache.get("k")

    assert cache.size == 0


# --- the bound


def entry(size: int) -> bytes:
    """A value that takes `size` bytes under a name of one letter (":1:k")."""
    return b"x" * (size - OVERHEAD_BYTES - len(":1:k"))


def test_it_never_holds_more_than_it_may() -> None:
    cache = make(10_000)
    for number in range(1000):
        cache.set(f"k{number}", b"x" * (number % 700))
        assert cache.size <= 10_000
    assert cache.get("k999") is not None


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = make(3000)
    for name in "abc":
        cache.set(name, entry(1000))
    cache.get("a")
    cache.touch("b")
    cache.has_key("b")
    cache.set("d", entry(1000))

    assert cache.get_many("abcd").keys() == {"a", "b", "d"}


def test_what_is_set_anew_counts_once() -> None:
    cache = make(3000)
    for _ in range(10):
        cache.set("a", entry(1000))
        cache.set("b", entry(1000))

    assert cache.size == 2000
    assert cache.get_many("ab").keys() == {"a", "b"}


def test_what_is_larger_than_all_of_it_is_not_kept_and_nothing_goes_for_it() -> None:
    cache = make(3000)
    cache.set("a", entry(1000))
    cache.set("b", entry(1000))
    cache.set("b", entry(3001))

    assert cache.get_many("ab").keys() == {"a"}
    cache.set("c", entry(2000))
    assert cache.get_many("ac").keys() == {"a", "c"}


def test_a_number_that_grows_is_counted_by_its_size() -> None:
    cache = make()
    cache.set("k", 1)
    cache.incr("k", 1 << 200)
    cache.delete("k")

    assert cache.size == 0


# --- threads


def test_threads_count_without_losing_any(cache: MemoryCache) -> None:
    cache.set("k", 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [cache.incr("k") for _ in range(250)], range(8)))

    assert cache.get("k") == 2000


def test_one_thread_adds(cache: MemoryCache) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(100):
            added = list(pool.map(lambda mine, name=number: cache.add(f"k{name}", mine), range(8)))
            assert added.count(True) == 1


def test_threads_do_what_they_like_and_the_sizes_add_up() -> None:
    cache, failures = make(20_000), list[BaseException]()
    until = time.monotonic() + 0.3

    def work(seed: int) -> None:
        number = seed
        try:
            while time.monotonic() < until:
                number = (number * 1103515245 + 12345) % (1 << 31)
                name = f"k{number % 50}"
                cache.set(name, b"x" * (number % 3000), (None, 0, 10)[number % 3])
                cache.get(name)
                cache.add(name, number)
                cache.touch(name)
                cache.delete(f"k{number % 49}")
                if number % 97 == 0:
                    cache.clear_prefix("k1")
        except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert 0 <= cache.size <= 20_000
    cache.delete_many(f"k{number}" for number in range(50))
    assert cache.size == 0


# --- beside Django's own


class BesideLocMem(RuleBasedStateMachine):
    """Whatever is done in whatever order, Django's own cache says the same, as long as all has room."""

    def __init__(self) -> None:
        super().__init__()
        self.mine, self.djangos = make(1 << 30), LocMemCache(uuid.uuid4().hex, {})

    def both(self, method: str, *arguments: Any) -> None:
        told: list[Any] = []
        for each in (self.mine, self.djangos):
            try:
                told.append(getattr(each, method)(*arguments))
            except (ValueError, TypeError) as error:
                told.append(type(error))
        assert told[0] == told[1], (method, arguments)

    keys = st.sampled_from(["a", "b", "answer:c"])
    values = st.integers() | st.binary(max_size=9) | st.text(max_size=3) | st.none()
    times = st.sampled_from([None, 0, -1, 1000])

    @rule(method=st.sampled_from(["set", "add"]), key=keys, value=values, seconds=times)
    def put(self, method: str, key: str, value: Any, seconds: Any) -> None:
        self.both(method, key, value, seconds)

    @rule(
        method=st.sampled_from(["get", "has_key", "delete", "incr", "decr", "touch", "incr_version"]),
        key=keys,
    )
    def one(self, method: str, key: str) -> None:
        self.both(method, key)

    @rule(key=keys, seconds=times)
    def touch(self, key: str, seconds: Any) -> None:
        self.both("touch", key, seconds)

    @rule()
    def clear(self) -> None:
        self.both("clear")

    @invariant()
    def both_hold_the_same(self) -> None:
        self.both("get_many", ["a", "b", "answer:c"])
        assert self.mine.size >= 0


BesideLocMem.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBesideDjangosOwn = BesideLocMem.TestCase
