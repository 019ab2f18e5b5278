"""A running count of what each call has received, in a memory-mapped file: it survives the process.

A slot holds a completion's id, the bytes of answer received so far, and the model each of its upstream calls
went to. Writing one is a store into memory; the operating system keeps it when the process is killed. A crash
of the whole machine may lose the last seconds.
"""

import mmap
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

NOTED = 8  # upstream calls of one completion; of further ones, the last takes the place of the one before
SLOT = struct.Struct(f"<16sQ{NOTED}Q")
HEAD = struct.Struct("<16sQ")
COUNT = struct.Struct("<Q")
SLOTS = 16_384  # running calls of one process whose progress is kept; further ones go without
FREE = bytes(SLOT.size)


class Left(NamedTuple):
    """What a process left of a call: bytes of answer, and the ids of the models called, in order."""

    received: int = 0
    models: tuple[int, ...] = ()


class Progress:
    """The slots of this process. Used from the event loops; `move` by the writer's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = SLOT.size * SLOTS
        self._map = _mapped(path, self._size)
        self._free = list(range(SLOTS - 1, -1, -1))
        self._taken: dict[uuid.UUID, int] = {}
        self._lock = threading.Lock()  # so that no slot begins in a file that is about to be left

    def begin(self, completion: uuid.UUID) -> int:
        """A slot for a call; -1 when all are taken."""
        with self._lock:
            if not self._free:
                return -1
            slot = self._taken[completion] = self._free.pop()
            HEAD.pack_into(self._map, slot * SLOT.size, completion.bytes, 0)
            return slot

    def called(self, completion: uuid.UUID, number: int, model: int) -> None:
        """The call's upstream call `number` (from 1) goes to this model. Without a slot nothing is noted."""
        with self._lock:
            slot = self._taken.get(completion)
            if slot is not None:
                place = slot * SLOT.size + HEAD.size + COUNT.size * (min(number, NOTED) - 1)
                COUNT.pack_into(self._map, place, model)

    def count(self, slot: int, received: int) -> None:
        """So many bytes of answer have come by now."""
        if slot >= 0:
            COUNT.pack_into(self._map, slot * SLOT.size + 16, received)

    def end(self, slot: int) -> None:
        """The call is settled."""
        if slot < 0:
            return
        with self._lock:
            start = slot * SLOT.size
            self._taken.pop(uuid.UUID(bytes=self._map[start : start + 16]), None)
            self._map[start : start + SLOT.size] = FREE
            self._free.append(slot)

    def move(self, path: Path) -> None:
        """Go on under another name; where the file was removed, in a new one. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            try:
                self.path.rename(path)
            except FileNotFoundError:
                found = _mapped(path, self._size)
                found[:] = self._map[:]
                self._map = found
            self.path = path

    def close(self) -> None:
        """Remove the file: nothing is running. A call that does all the same goes uncounted."""
        self.path.unlink(missing_ok=True)


def _mapped(path: Path, size: int) -> mmap.mmap:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def read(path: Path) -> dict[uuid.UUID, int]:
    """Bytes received by completion, as a process left them; empty where it left no file."""
    return {completion: left.received for completion, left in left_in(path).items()}


def left_in(path: Path) -> dict[uuid.UUID, Left]:
    """All that a process left, by completion; empty where it left no file."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    return dict(_slots(data))


def _slots(data: bytes) -> Iterator[tuple[uuid.UUID, Left]]:
    whole = len(data) - len(data) % SLOT.size
    for completion, received, *models in SLOT.iter_unpack(data[:whole]):
        if completion != FREE[:16]:
            yield uuid.UUID(bytes=completion), Left(received, tuple(model for model in models if model))
