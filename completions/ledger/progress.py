"""A running count of what each stream has received, in a memory-mapped file: it survives the process.

A slot holds a completion's id and the bytes of answer received so far. Writing one is a store into memory;
the operating system keeps it when the process is killed. A crash of the whole machine may lose the last
seconds.
"""

import mmap
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

SLOT = struct.Struct("<16sQ")
COUNT = struct.Struct("<Q")
SLOTS = 16_384  # running calls of one process whose progress is kept; further ones go without
FREE = bytes(16)


class Progress:
    """The slots of this process. Used from the event loop alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") as file:
            file.truncate(SLOT.size * SLOTS)
            self._map = mmap.mmap(file.fileno(), SLOT.size * SLOTS)
        self._free = list(range(SLOTS - 1, -1, -1))

    def begin(self, completion: uuid.UUID) -> int:
        """A slot for a call; -1 when all are taken."""
        if not self._free:
            return -1
        slot = self._free.pop()
        SLOT.pack_into(self._map, slot * SLOT.size, completion.bytes, 0)
        return slot

    def count(self, slot: int, received: int) -> None:
        """So many bytes of answer have come by now."""
        if slot >= 0:
            COUNT.pack_into(self._map, slot * SLOT.size + 16, received)

    def end(self, slot: int) -> None:
        """The call is settled."""
        if slot >= 0:
            SLOT.pack_into(self._map, slot * SLOT.size, FREE, 0)
            self._free.append(slot)

    def close(self) -> None:
        """Remove the file: nothing is running."""
        self._map.close()
        self.path.unlink(missing_ok=True)


def read(path: Path) -> dict[uuid.UUID, int]:
    """Bytes received by completion, as a process left them; empty where it left no file."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    return dict(_taken(data))


def _taken(data: bytes) -> Iterator[tuple[uuid.UUID, int]]:
    whole = len(data) - len(data) % SLOT.size
    for completion, received in SLOT.iter_unpack(data[:whole]):
        if completion != FREE:
            yield uuid.UUID(bytes=completion), received
