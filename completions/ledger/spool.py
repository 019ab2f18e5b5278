"""Settlements, and final rows, that the database could not take: kept in a file, replayed when it is back.

One line of JSON each, forced to disk. Replaying twice changes nothing: a row leaves `running` once, and is
inserted once. A line that was cut in two was never acknowledged, and is passed over; what is added later
begins on a line of its own.

Any process replays what it finds here, perhaps while the file's own process still adds to it. So both lock
the file; who adds waits for nobody, and begins another file of the same epoch where it is locked or gone.
"""

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from completions.ledger.operations import Lasting, Opening, Post, Row, Settle
from completions.ledger.sql import json_text
from completions.types import Caller

IDS = ("provider_id", "cached_from")
TIMES = ("finished_at", "expires_at")


def call_id(operation: Lasting) -> uuid.UUID:
    """Whose row it is."""
    return operation.opening.id if isinstance(operation, Post) else operation.id


def plainer_than(operation: Lasting) -> Lasting | None:
    """The same money without its details, None where there are none.

    An attempt or a text that cannot be stored does not keep the row from its end.
    """
    if isinstance(operation, Post):
        return replace(operation, content=None) if operation.content else None
    if operation.attempts or operation.content:
        return replace(operation, attempts=(), content=None)
    return None


class Spool:
    """The file of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, settles: Sequence[Lasting]) -> None:
        """Keep settlements; they are on disk when this returns. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = b"\n" + b"".join(_line(settle) for settle in settles)
        path = self.path
        while not _append(path, lines):
            path = path.with_name(f"{epoch_of(path)}.{uuid.uuid4().hex}{path.suffix}")

    @contextmanager
    def held(self) -> Iterator[Sequence[Lasting]]:
        """What waits, oldest first: nobody else adds or replays meanwhile. `clear` it inside.

        Nothing, where another holds it.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            yield ()
            return
        try:
            waiting = self.read() if (mine := _is_mine(descriptor, self.path)) else []
            if mine and not waiting:
                self.clear()
            yield waiting
        finally:
            os.close(descriptor)

    def read(self) -> list[Lasting]:
        """What waits, oldest first."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [settle for line in lines if (settle := _parsed(line)) is not None]

    def clear(self) -> None:
        """Everything was replayed."""
        self.path.unlink(missing_ok=True)


def _append(path: Path, lines: bytes) -> bool:
    """False: the file is another's at the moment, or gone since it was opened."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if not _is_mine(descriptor, path):
            return False
        if os.write(descriptor, lines) < len(lines):
            raise OSError(errno.ENOSPC, "the disk is full", str(path))
        os.fsync(descriptor)
        return True
    finally:
        os.close(descriptor)


def _is_mine(descriptor: int, path: Path) -> bool:
    """Lock an open file; False where another has, or it is no longer the one at `path`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def epoch_of(path: Path) -> str:
    """Whose file it is, whatever was added to its name."""
    return path.name.partition(".")[0]


def _line(operation: Lasting) -> bytes:
    row: dict[str, Any] = {
        "id": call_id(operation),
        "final": operation.final,
        "content": _plain(operation.content),
    }
    if isinstance(operation, Post):
        opening = operation.opening._asdict() | {"claims": (), "caller": operation.opening.caller._asdict()}
        row |= {"opening": opening, "created_at": operation.created_at}
    else:
        row["attempts"] = list(operation.attempts)
    return json.dumps(row, default=str).encode() + b"\n"


def _plain(content: Row | None) -> Row | None:
    """Texts instead of what they are made of: bytes have no place in JSON."""
    if content is None:
        return None
    return {**content, "request": json_text(content["request"]), "response": json_text(content["response"])}


def _parsed(line: bytes) -> Lasting | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    content = None if row["content"] is None else _times(row["content"])
    if "opening" in row:
        opening = row["opening"] | {"id": uuid.UUID(row["id"]), "caller": Caller(**row["opening"]["caller"])}
        created_at = datetime.fromisoformat(row["created_at"])
        return Post(Opening(**opening), created_at, _times(row["final"]), content)
    return Settle(uuid.UUID(row["id"]), _times(row["final"]), row["attempts"], content)


def _times(row: dict[str, Any]) -> dict[str, Any]:
    """Times and ids were written as text."""
    read: dict[str, Any] = dict(row)
    for name in TIMES:
        if name in read:
            read[name] = datetime.fromisoformat(read[name])
    for name in IDS:
        if read.get(name):
            read[name] = uuid.UUID(read[name])
    return read
