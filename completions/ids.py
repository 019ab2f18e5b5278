"""Ids: of calls, ordered by time (UUID version 7), so that a period of the ledger is a range of its primary
key; and of requests, a caller's own or ours.
"""

import re
import uuid
from datetime import datetime

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def first_id(moment: datetime) -> uuid.UUID:
    """The least id that a call of `moment` can have."""
    return uuid.UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def harmless(given: str | None) -> str:
    """The client's own request id where it is harmless, else nothing."""
    return given if given and REQUEST_ID.fullmatch(given) else ""


def kept_or_new(given: str | None) -> str:
    """The client's own request id where it is harmless, else a new one."""
    return harmless(given) or uuid.uuid4().hex
