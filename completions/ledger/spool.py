"""Settlements that the database could not take: kept in a file, forced to disk, replayed when it is back.

One line of JSON each. Replaying twice changes nothing: a row leaves `running` once. A line that was cut in
two was never acknowledged, and is passed over; what is added later begins on a line of its own.
"""

import errno
import json
import os
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from completions.ledger.operations import Row, Settle
from completions.ledger.sql import json_text

TIMES = ("finished_at", "expires_at")


class Spool:
    """The file of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, settles: Sequence[Settle]) -> None:
        """Keep settlements; they are on disk when this returns. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            lines = b"\n" + b"".join(_line(settle) for settle in settles)
            if os.write(descriptor, lines) < len(lines):
                raise OSError(errno.ENOSPC, "the disk is full", str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> list[Settle]:
        """What waits, oldest first."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return []
        return [settle for line in lines if (settle := _parsed(line)) is not None]

    def clear(self) -> None:
        """Everything was replayed."""
        self.path.unlink(missing_ok=True)


def _line(settle: Settle) -> bytes:
    text = json.dumps(
        {
            "id": settle.id,
            "final": settle.final,
            "attempts": list(settle.attempts),
            "content": _plain(settle.content),
        },
        default=str,
    )
    return text.encode() + b"\n"


def _plain(content: Row | None) -> Row | None:
    """Texts instead of what they are made of: bytes have no place in JSON."""
    if content is None:
        return None
    return {**content, "request": json_text(content["request"]), "response": json_text(content["response"])}


def _parsed(line: bytes) -> Settle | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    content = None if row["content"] is None else _times(row["content"])
    return Settle(uuid.UUID(row["id"]), _times(row["final"]), row["attempts"], content)


def _times(row: dict[str, Any]) -> dict[str, Any]:
    """Times and ids were written as text."""
    read: dict[str, Any] = dict(row)
    for name in TIMES:
        if name in read:
            read[name] = datetime.fromisoformat(read[name])
    if read.get("provider_id"):
        read["provider_id"] = uuid.UUID(read["provider_id"])
    return read
