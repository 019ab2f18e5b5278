"""Tickets: a page shows one to open a websocket, where it can send no header, and no key in the address.

Good for one use within TICKET_SECONDS; worth what its maker was: a key, or a signed-in person, for as long as
the session lasts. Kept in the cache that all processes share, by their hash. The session's key is encrypted
there under the ticket itself: who reads the cache learns no session.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.fernet import Fernet
from django.core.cache import cache

from completions.types import Caller, Session

TICKET_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ticket:
    """What its maker is given."""

    text: str
    expires_at: datetime


def issue(caller: Caller) -> Ticket:
    """A new ticket of a caller."""
    text = secrets.token_urlsafe(24)
    sealed = None if caller.session is None else _seal(text).encrypt(caller.session.key.encode())
    facts = (caller.project_id, caller.project, caller.api_key_id, caller.user_id, sealed)
    cache.set(_name(text), facts, TICKET_SECONDS)
    return Ticket(text, datetime.now(UTC) + timedelta(seconds=TICKET_SECONDS))


def redeem(text: str) -> Caller | None:
    """Who made the ticket, once; None: it is unknown, used, or too old."""
    facts = cache.get(_name(text))
    if facts is None or not cache.delete(_name(text)):  # of two at once, one deletes it
        return None
    project_id, project, api_key_id, user_id, sealed = facts
    session = None if sealed is None else Session(_seal(text).decrypt(sealed).decode())
    return Caller(project_id, project, api_key_id, user_id, "ws", session=session)


def _seal(text: str) -> Fernet:
    """Opens only with the ticket, which is not kept."""
    digest = hashlib.sha256(f"ws-ticket-seal:{text}".encode()).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


def _name(text: str) -> str:
    return f"ws-ticket:{hashlib.sha256(text.encode()).hexdigest()}"
