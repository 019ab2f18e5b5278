"""The calls that run now, in every process of the hub: who asked, how far they are; and ending one.

Rows say which there are. What came of their answers is in the progress files of this machine's processes. A
call is ended by the process that makes it: at once if it is this one, else when that is told so (`control`).
"""

import asyncio
import math
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from completions import control, running
from completions.bridge import run_sync
from completions.errors import EndedByStaffError
from completions.ledger import progress
from completions.ledger.recovery import BYTES_PER_TOKEN, living, progress_path
from completions.models import Completion, State

MOST = 200  # listed, those that have run longest first
LOOK_SECONDS = 0.05
ENDED = "Staff of the hub ended this call before its answer was complete."
CANCEL = "call.cancel"


class Underway(NamedTuple):
    """A call that runs. `tokens` of its answer so far, estimated; None: its process is on another machine."""

    row: Completion
    tokens: int | None
    lost: bool  # its process does not live: the row is settled soon


def count() -> int:
    """How many run."""
    return Completion.objects.filter(state=State.RUNNING).count()


def calls() -> Sequence[Underway]:
    """At most MOST of them, the longest running first."""
    rows = Completion.objects.filter(state=State.RUNNING).select_related("project", "api_key", "user")
    found = list(rows.order_by("id")[:MOST])
    received: dict[uuid.UUID, int] = {}
    here: set[int] = set()
    for epoch_id in {row.epoch_id for row in found if row.epoch_id is not None}:
        path = progress_path(epoch_id)
        if path.exists():
            here.add(epoch_id)
            received |= progress.read(path)
    alive = living() if found else set()
    return [
        Underway(
            row,
            math.ceil(received.get(row.pk, 0) / BYTES_PER_TOKEN) if row.epoch_id in here else None,
            row.epoch_id not in alive,
        )
        for row in found
    ]


def cancel(call_id: uuid.UUID) -> None:
    """Let a call end as `cancelled`, settled at what came; its caller is told ENDED.

    A call of another process is ended a moment later, if that listens.
    """
    if not _cancel_here(call_id):
        run_sync(control.tell, {"type": CANCEL, "call": call_id.hex})


def has_ended(call_id: uuid.UUID, seconds: float) -> bool:
    """Whether its row is final, or becomes so within `seconds`."""
    deadline = time.monotonic() + seconds
    while Completion.objects.filter(pk=call_id, state=State.RUNNING).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def listen() -> None:
    """End this process's calls when another asks for it."""
    control.handle(CANCEL, _told)


def _told(message: control.Message) -> None:
    with suppress(ValueError):
        _cancel_here(uuid.UUID(message["call"]))


def _cancel_here(call_id: uuid.UUID) -> bool:
    """Whether this process makes the call; then it ends, on its own loop."""
    found = False
    for loop, run in running.everywhere():
        if getattr(run, "id", None) == call_id:  # what runs for several calls has none of its own
            found = True
            asyncio.run_coroutine_threadsafe(run.fail(EndedByStaffError(ENDED), State.CANCELLED), loop)
    return found
