"""Django's cache in this process's memory, bounded by bytes: what was not used for longest goes first.

Django's own (locmem) counts entries, which for answers of a few bytes or a megabyte each bounds nothing.
"""

import pickle
import threading
import time
from collections import OrderedDict
from typing import Any, ClassVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

OVERHEAD_BYTES = 200  # of an entry, beside name and value
MOST_BYTES = 64 << 20

# Name: when it ends (monotonic), value, whether it is pickled; longest unused first.
Entries = OrderedDict[str, tuple[float, bytes, bool]]


class _Shelf:
    """What all instances of one LOCATION share: Django makes one for each thread."""

    def __init__(self) -> None:
        self.entries: Entries = OrderedDict()
        self.size = 0
        self.lock = threading.RLock()


class MemoryCache(BaseCache):
    """OPTIONS: MOST_BYTES. Values are pickled, as Django's other backends keep them: nobody shares them.

    Bytes, which nobody can change, are kept as they are.
    """

    shelves: ClassVar[dict[str, _Shelf]] = {}

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._most: int = params.get("OPTIONS", {}).get("MOST_BYTES", MOST_BYTES)
        self._shelf = self.shelves.setdefault(name, _Shelf())

    def add(
        self, key: str, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        with self._shelf.lock:
            if self.has_key(key, version):
                return False
            self.set(key, value, timeout, version)
            return True

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        kept = self._kept(self.make_and_validate_key(key, version))
        return default if kept is None else _value(kept)

    def set(
        self, key: str, value: Any, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        name = self.make_and_validate_key(key, version)
        pickled = type(value) is not bytes
        data: bytes = pickle.dumps(value, pickle.HIGHEST_PROTOCOL) if pickled else value
        self._put(name, (self._end(timeout), data, pickled))

    def touch(self, key: str, timeout: float | None = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name = self.make_and_validate_key(key, version)
        with self._shelf.lock:
            kept = self._kept(name)
            if kept is None:
                return False
            self._shelf.entries[name] = (self._end(timeout), *kept[1:])
            return True

    def delete(self, key: str, version: int | None = None) -> bool:
        with self._shelf.lock:
            return self._drop(self.make_and_validate_key(key, version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        return self._kept(self.make_and_validate_key(key, version)) is not None

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        name = self.make_and_validate_key(key, version)
        with self._shelf.lock:
            kept = self._kept(name)
            if kept is None:
                raise ValueError(f"Key {key!r} not found")
            value: int = _value(kept) + delta
            self._put(name, (kept[0], pickle.dumps(value, pickle.HIGHEST_PROTOCOL), True))
            return value

    def clear(self) -> None:
        with self._shelf.lock:
            self._shelf.entries.clear()
            self._shelf.size = 0

    def clear_prefix(self, prefix: str) -> None:
        """Delete every key that begins so."""
        begins = self.make_key(prefix)
        with self._shelf.lock:
            for name in [name for name in self._shelf.entries if name.startswith(begins)]:
                self._drop(name)

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._shelf.size

    @property
    def most(self) -> int:
        """Bytes that it may hold."""
        return self._most

    def _kept(self, name: str) -> tuple[float, bytes, bool] | None:
        """A value that has not ended; it counts as used now."""
        shelf = self._shelf
        with shelf.lock:
            found = shelf.entries.get(name)
            if found is None:
                return None
            if found[0] <= time.monotonic():
                self._drop(name)
                return None
            shelf.entries.move_to_end(name)
            return found

    def _put(self, name: str, kept: tuple[float, bytes, bool]) -> None:
        """Keep a value as the one used last; one that is larger than all there may be is not kept."""
        shelf, size = self._shelf, _size(name, kept[1])
        with shelf.lock:
            self._drop(name)
            if size > self._most:
                return
            shelf.entries[name] = kept
            shelf.size += size
            while shelf.size > self._most:
                self._drop(next(iter(shelf.entries)))

    def _drop(self, name: str) -> bool:
        found = self._shelf.entries.pop(name, None)
        if found is None:
            return False
        self._shelf.size -= _size(name, found[1])
        return True

    def _end(self, timeout: Any) -> float:
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return float("inf") if seconds is None else time.monotonic() + seconds


def _value(kept: tuple[float, bytes, bool]) -> Any:
    return pickle.loads(kept[1]) if kept[2] else kept[1]  # noqa: S301 - written by this process


def _size(name: str, data: bytes) -> int:
    return len(name) + len(data) + OVERHEAD_BYTES
