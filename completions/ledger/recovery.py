"""Processes that write the ledger, and what becomes of the rows of one that died.

A process registers an epoch and beats every few seconds. A `running` row whose epoch does not live is settled
as `recovered` at what is known: the prompt as counted at admission, the bytes of answer and the model that
its progress file shows, at the prices in the row, or today's of a candidate that took over. Any process does
it, and twice does no harm: a row leaves `running` once.

Of a process on this machine its id and its start say whether it lives, however long it was stopped; of one
elsewhere, its beats.
"""

import logging
import math
import os
import socket
import uuid
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, timedelta
from functools import cache
from pathlib import Path

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from completions.ledger.operations import Row, Settle
from completions.ledger.progress import Left, left_in
from completions.ledger.spool import Spool, epoch_of
from completions.models import Completion, Epoch, State
from providers import pricing
from providers.models import LanguageModel
from providers.pricebook import PriceBook
from providers.types import Usage, UsageSource

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
DEAD_SECONDS = 20.0  # without a beat; what remains of the promised 30 is for finding and settling
BATCH = 100
BYTES_PER_TOKEN = 4  # of answer, where nothing but its size is known
SPOOL = ".spool"
REFUSED = ".refused"  # of settlements that the database refused by themselves: they are tried now and then
STARTED = "@"  # parts a machine's name from when the process started, in `Epoch.host`
ENDED = "The process that made this call ended before the call did."
LOST = "How it ended is not known: its process ended before the call did."


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
    return "/".join(parts)[:160]


def register() -> int:
    """A new epoch of this process."""
    now = timezone.now()
    place = f"{host()}{STARTED}{_start(os.getpid())}"
    return Epoch.objects.create(host=place, pid=os.getpid(), started_at=now, heartbeat_at=now).pk


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
    return {epoch.pk for epoch in Epoch.objects.filter(ended_at=None) if _lives(epoch)}


def _lives(epoch: Epoch) -> bool:
    """One of this process whose writer has left it is judged by its beats, as those elsewhere are."""
    place, _, start = epoch.host.partition(STARTED)
    fresh = epoch.heartbeat_at >= timezone.now() - timedelta(seconds=DEAD_SECONDS)
    if place != host():
        return fresh
    return _runs(epoch.pid, start) and (fresh or epoch.pid != os.getpid())


def _runs(pid: int, start: str) -> bool:
    """Whether this very process runs: its id may be another's by now. `start` may be unknown."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    fields = _stat(pid)
    if fields and fields[0] == "Z":
        return False
    return not fields or not start or fields[19] == start


def _start(pid: int) -> str:
    """When a process started, in the machine's own ticks; empty where that cannot be known."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; empty where it says nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def orphaned_epochs(mine: Set[int]) -> list[int | None]:
    """Epochs that have running rows and do not live. `mine` are this process's: it settles its own calls."""
    alive = living() | mine
    found = Completion.objects.filter(state=State.RUNNING).values_list("epoch_id", flat=True).distinct()
    return [epoch_id for epoch_id in found.order_by() if epoch_id not in alive]


def settlements(epoch_id: int | None) -> list[Settle]:
    """At most BATCH settlements of running rows of an epoch."""
    left = _left_by(epoch_id)
    rows = list(Completion.objects.filter(state=State.RUNNING, epoch_id=epoch_id)[:BATCH])
    called = {model for row in rows for model in left.get(row.pk, Left()).models}
    models = LanguageModel.objects.select_related("provider").in_bulk(called)
    prices = PriceBook()
    return [_settlement(row, left.get(row.pk, Left()), models, prices) for row in rows]


def _left_by(epoch_id: int | None) -> Mapping[uuid.UUID, Left]:
    """What an epoch's process left: in the file of a later epoch, where it had begun one."""
    if epoch_id is None:
        return {}
    own = progress_path(epoch_id)
    paths = [own] if own.exists() else folder().glob("*.progress")
    return {call: left for path in paths for call, left in left_in(path).items()}


def _settlement(row: Completion, left: Left, models: Mapping[int, LanguageModel], book: PriceBook) -> Settle:
    """The end of a row, from what its process left behind: its last upstream call is billed."""
    last = models.get(left.models[-1]) if left.models else None
    usage = Usage(
        prompt=row.prompt_tokens or 0,
        completion=math.ceil(left.received / BYTES_PER_TOKEN),
        source=UsageSource.ESTIMATED,
    )
    billed = _priced(row, last, book, usage) | {
        "state": State.RECOVERED,
        "error_message": ENDED,
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "usage_source": str(usage.source),
    }
    earlier = [_lost(number, models.get(model)) for number, model in enumerate(left.models[:-1], start=1)]
    number = len(earlier) + 1
    final = billed | _place(row, last) | {"attempts": number, "finished_at": timezone.now()}
    final |= {} if last is None else {"provider_id": last.provider_id, "language_model_id": last.pk}
    attempt = billed | _place(row, last) | {"number": number, "started_ms": 0, "latency_ms": 0}
    return Settle(row.pk, final, [*earlier, attempt])


def _place(row: Completion, model: LanguageModel | None) -> Row:
    """Where a call went; the first candidate where nothing else is known."""
    if model is None:
        return {"provider_slug": row.provider_slug, "model": row.model}
    return {"provider_slug": model.provider.slug, "model": model.name}


def _priced(row: Completion, model: LanguageModel | None, book: PriceBook, usage: Usage) -> Row:
    """Cost and prices. A row has those of its first candidate; another's are looked up."""
    place = _place(row, model)
    prices, source = row.prices, row.price_source
    try:
        if place != _place(row, None):
            day = row.created_at.astimezone(UTC).date()
            price = book.price(place["provider_slug"], place["model"], day)
            prices, source = (pricing.dump(price), price.source) if price else ("", "")
        cost = pricing.cost(usage, pricing.load(prices)) if prices else None
    except (OperationalError, InterfaceError):
        raise
    except Exception:  # whatever it is, it keeps no row from its end
        logger.exception("call %s is recovered without a price", row.pk)
        prices, source, cost = "", "", None
    return {"cost_nano_usd": cost, "prices": prices, "price_source": source}


def _lost(number: int, model: LanguageModel | None) -> Row:
    """An earlier upstream call, which brought nothing of the answer."""
    return {
        "number": number,
        "provider_slug": model.provider.slug if model else "",
        "model": model.name if model else "",
        "state": State.UPSTREAM_ERROR,
        "error_message": LOST,
        "cost_nano_usd": 0,
    }


def close_dead(mine: Set[int]) -> None:
    """Mark epochs that do not live and have nothing running as ended; remove the files they left here.

    A process elsewhere that only seemed dead learns of it by its next beat, and makes its file anew.
    """
    alive = living() | mine
    for epoch in Epoch.objects.filter(ended_at=None):
        busy = Completion.objects.filter(state=State.RUNNING, epoch_id=epoch.pk).exists()
        if epoch.pk not in alive and not busy:
            end(epoch.pk)
            progress_path(epoch.pk).unlink(missing_ok=True)


def spools_of(epochs: Set[int], suffix: str = SPOOL) -> Sequence[Spool]:
    """The spool files of these epochs, oldest name first."""
    names = {str(epoch_id) for epoch_id in epochs}
    return [Spool(path) for path in sorted(folder().glob(f"*{suffix}")) if epoch_of(path) in names]


def spools_left(mine: Set[int], suffix: str = SPOOL) -> Sequence[Spool]:
    """Spool files on this machine whose processes do not live."""
    paths = sorted(folder().glob(f"*{suffix}"))
    if not paths:
        return []
    alive = {str(epoch_id) for epoch_id in living() | mine}
    return [Spool(path) for path in paths if epoch_of(path) not in alive]


def refused(mine: Set[int]) -> Sequence[Spool]:
    """What the database refused to this process, and to those that do not live."""
    return [*spools_of(mine, REFUSED), *spools_left(mine, REFUSED)]


def folder() -> Path:
    return Path(settings.LLMHUB_DATA_DIR) / "ledger"


def progress_path(epoch_id: int) -> Path:
    return folder() / f"{epoch_id}.progress"


def spool_path(epoch_id: int, suffix: str = SPOOL) -> Path:
    return folder() / f"{epoch_id}{suffix}"
