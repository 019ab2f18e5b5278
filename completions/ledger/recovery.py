"""Processes that write the ledger, and what becomes of the rows of one that died.

A process registers an epoch and beats every few seconds. A `running` row whose epoch does not live is settled
as `recovered` at what is known: the prompt as counted at admission, the bytes of answer that its progress
file shows, at the prices in the row. Any process does it, and twice does no harm: a row leaves `running`
once.
"""

import math
import os
import socket
from collections.abc import Sequence, Set
from datetime import timedelta
from functools import cache
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from completions.ledger import progress
from completions.ledger.operations import Row, Settle
from completions.ledger.spool import Spool
from completions.models import Completion, Epoch, State
from providers import pricing
from providers.types import Usage, UsageSource

BEAT_SECONDS = 5.0
DEAD_SECONDS = 20.0  # without a beat; what remains of the promised 30 is for finding and settling
BATCH = 100
BYTES_PER_TOKEN = 4  # of answer, where nothing but its size is known


@cache
def host() -> str:
    """This machine, this boot, this container: within it a process id says whether a process lives."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            file = Path(path)
            parts.append(file.read_text().strip()[:13] if "boot" in path else str(file.stat().st_ino))
        except OSError:
            parts.append("?")
    return "/".join(parts)[:200]


def register() -> int:
    """A new epoch of this process."""
    now = timezone.now()
    return Epoch.objects.create(host=host(), pid=os.getpid(), started_at=now, heartbeat_at=now).pk


def beat(epoch_id: int) -> bool:
    """Whether this epoch still counts as alive.

    Else its rows were given to others, and it needs a new one.
    """
    return bool(Epoch.objects.filter(pk=epoch_id, ended_at=None).update(heartbeat_at=timezone.now()))


def end(epoch_id: int) -> None:
    """The process ends in order: nothing of it is running."""
    Epoch.objects.filter(pk=epoch_id).update(ended_at=timezone.now())


def living() -> set[int]:
    """The epochs that count as alive."""
    fresh = timezone.now() - timedelta(seconds=DEAD_SECONDS)
    epochs = Epoch.objects.filter(ended_at=None, heartbeat_at__gte=fresh)
    return {epoch.pk for epoch in epochs if epoch.host != host() or _runs(epoch.pid)}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def orphaned_epochs(mine: Set[int]) -> list[int | None]:
    """Epochs that have running rows and do not live. `mine` are this process's: it settles its own calls."""
    alive = living() | mine
    found = Completion.objects.filter(state=State.RUNNING).values_list("epoch_id", flat=True).distinct()
    return [epoch_id for epoch_id in found.order_by() if epoch_id not in alive]


def settlements(epoch_id: int | None) -> list[Settle]:
    """At most BATCH settlements of running rows of an epoch."""
    received = progress.read(progress_path(epoch_id)) if epoch_id is not None else {}
    rows = Completion.objects.filter(state=State.RUNNING, epoch_id=epoch_id)[:BATCH]
    return [Settle(row.pk, _known(row, received.get(row.pk, 0))) for row in rows]


def _known(row: Completion, received: int) -> Row:
    """The final state of a row, from what its process left behind."""
    usage = Usage(
        prompt=row.prompt_tokens or 0,
        completion=math.ceil(received / BYTES_PER_TOKEN),
        source=UsageSource.ESTIMATED,
    )
    return {
        "state": State.RECOVERED,
        "error_message": "The process that made this call ended before the call did.",
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "usage_source": str(usage.source),
        "cost_nano_usd": pricing.cost(usage, pricing.load(row.prices)) if row.prices else None,
        "attempts": 1,
        "finished_at": timezone.now(),
    }


def close_dead(mine: Set[int]) -> None:
    """Mark epochs that do not live and have nothing running as ended; remove the files they left here."""
    alive = living() | mine
    for epoch in Epoch.objects.filter(ended_at=None):
        busy = Completion.objects.filter(state=State.RUNNING, epoch_id=epoch.pk).exists()
        if epoch.pk not in alive and not busy:
            end(epoch.pk)
            progress_path(epoch.pk).unlink(missing_ok=True)


def spools_left(mine: Set[int]) -> Sequence[Spool]:
    """Spool files on this machine whose processes do not live."""
    alive = {str(epoch_id) for epoch_id in living() | mine}
    paths = sorted(folder().glob("*.spool"))
    return [Spool(path) for path in paths if path.stem not in alive]


def folder() -> Path:
    return Path(settings.LLMHUB_DATA_DIR) / "ledger"


def progress_path(epoch_id: int) -> Path:
    return folder() / f"{epoch_id}.progress"


def spool_path(epoch_id: int) -> Path:
    return folder() / f"{epoch_id}.spool"
