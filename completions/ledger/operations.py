"""What is asked of the writer thread, each with a reply that tells when it is committed."""

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from completions.budgets import Claim
from completions.ledger.replies import LoopReply
from completions.types import Caller

Row = dict[str, Any]
Reply = Future[None] | LoopReply  # for who waits in a thread, or on an event loop


class Opening(NamedTuple):
    """What is known of a call before it is made: the row in state `running`, and what it may cost at most."""

    id: uuid.UUID
    caller: Caller
    requested_model: str
    stream: bool
    end_user: str = ""
    claims: Sequence[Claim] = ()
    hold_nano: int = 0
    prompt_tokens: int | None = None  # our own count or estimate: what a crash leaves to bill
    provider_slug: str = ""  # the first candidate, until another answers
    model: str = ""
    prices: str = ""  # of the first candidate, as JSON
    price_source: str = ""


@dataclass(slots=True, eq=False)
class Admit:
    """Write a row and hold its worst case on every claim; or refuse, alone."""

    opening: Opening
    created_at: datetime
    windows: tuple[int, ...] = ()  # set by the writer: where the hold lies
    abandoned: bool = False  # its caller was refused meanwhile: it need not be written any more
    done: "Reply" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class Settle:
    """Make a row final, release its hold, book its cost. A row that is final already stays as it is."""

    id: uuid.UUID
    final: Row
    attempts: Sequence[Row] = ()
    content: Row | None = None
    charges: Mapping[int, int] | None = None  # its hold by window, where it is known
    done: "Reply" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class Adjust:
    """Correct a settled cost by a row beside it, on every window the call was charged to.

    `cost_nano` is what the call shall have cost in all: the difference from what is booked is found when it
    is written, so the same correction twice, or two at once, make one.
    """

    id: uuid.UUID
    kind: str
    cost_nano: int
    prices: str
    price_source: str
    reason: str
    done: "Reply" = field(default_factory=Future)


Operation = Admit | Settle | Adjust
