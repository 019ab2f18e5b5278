"""Ids of calls are ordered by time (UUID version 7): a period of the ledger is a range of its primary key."""

import uuid
from datetime import datetime


def first_id(moment: datetime) -> uuid.UUID:
    """The least id that a call of `moment` can have."""
    return uuid.UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)
