"""Who opens a websocket: a key in a header, a ticket, or a signed-in person from a page of the hub itself."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest
from rest_framework.exceptions import PermissionDenied

from completions import keys, revocation, tickets
from completions.accounts import akey, aproject
from completions.authentication import project_of
from completions.errors import LLMServiceError, PermissionDeniedError, UnavailableError
from completions.types import Caller, Session

NOT_AUTHENTICATED, NOT_ALLOWED, TRY_LATER = 4401, 4403, 1013  # close codes
TICKET_PREFIX = "llmhub.ticket."
UNREADABLE = "The hub's database cannot be read now. Try again shortly."


class Refused(Exception):
    """The socket is closed with `code`; the message is its reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who it is, None where the first frame will tell; and the subprotocol to answer with."""

    caller: Caller | None
    subprotocol: str | None


async def admitted(scope: Any) -> Admitted:
    """By what the handshake shows. Raises Refused."""
    try:
        return await _admitted(scope)
    except (DatabaseError, InterfaceError) as error:
        raise Refused(TRY_LATER, UNREADABLE) from error


async def _admitted(scope: Any) -> Admitted:
    if f"{keys.PREFIX}-".encode() in scope.get("query_string", b""):
        raise Refused(NOT_AUTHENTICATED, "Addresses are logged: send the key in a header, or use a ticket.")
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    offered: list[str] = scope.get("subprotocols") or []
    subprotocol = next((name for name in offered if not name.startswith(TICKET_PREFIX)), None)
    key = keys.presented(headers.get(b"authorization", ""), headers.get(b"x-api-key", ""))
    if key is not None:
        return Admitted(await _by_key(key), subprotocol)
    shown = next((name for name in offered if name.startswith(TICKET_PREFIX)), None)
    if shown is not None:
        return Admitted(await by_ticket(shown.removeprefix(TICKET_PREFIX)), subprotocol or shown)
    session = _session_key(headers.get(b"cookie", ""))
    if session is not None and _is_own_page(headers, scope):
        caller = await sync_to_async(_by_session)(session, _project(scope))
        if caller is not None:
            return Admitted(caller, subprotocol)
    return Admitted(None, subprotocol)


async def by_ticket(text: str) -> Caller:
    """Raises Refused for a ticket that is no good."""
    caller = await sync_to_async(tickets.redeem)(text)
    if caller is None:
        raise Refused(NOT_AUTHENTICATED, "The ticket is unknown, used, or too old.")
    return caller


async def _by_key(key: str) -> Caller:
    try:
        return await keys.aauthenticate(key, surface="ws")
    except UnavailableError as error:
        raise Refused(TRY_LATER, error.message) from error
    except LLMServiceError as error:
        raise Refused(NOT_AUTHENTICATED, error.message) from error


async def in_force(caller: Caller) -> None:
    """Whether who opened a socket may still call: it may have been open for long.

    Raises AuthenticationError, PermissionDeniedError, UnavailableError.
    """
    try:
        if caller.api_key_id is not None:
            key, project = await akey(caller.api_key_id), await aproject(caller.project_id)
            if (error := keys.refusal(key, project, datetime.now(UTC))) is not None:
                raise error
        elif (refused := await sync_to_async(revocation.refusal)(caller)) is not None:
            if isinstance(refused, revocation.NoMemberError):
                raise PermissionDeniedError(refused.message) from refused
            raise refused
    except (DatabaseError, InterfaceError) as error:
        raise UnavailableError(UNREADABLE, retry_after=5) from error


def _is_own_page(headers: dict[bytes, str], scope: Any) -> bool:
    """A cookie is sent by any page: it counts only for the hub's own, whose origin is exactly this one.

    Elsewhere the socket is as one without a cookie: it may show a ticket.
    """
    origin = headers.get(b"origin", "")
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    return origin in (f"{scheme}://{headers.get(b'host', '')}", *settings.CSRF_TRUSTED_ORIGINS)


def _session_key(cookies: str) -> str | None:
    try:
        morsel = SimpleCookie(cookies).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def _project(scope: Any) -> str:
    """The project that a person chose: the query's `project`. It is no secret."""
    chosen = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("project", [""])
    return str(chosen[0])


def _by_session(session_key: str, project_slug: str) -> Caller | None:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    if not user.is_active or user.pk is None:
        return None
    try:
        project = project_of(user, project_slug)
    except PermissionDenied as error:
        raise Refused(NOT_ALLOWED, str(error.detail)) from error
    if project is None:
        raise Refused(NOT_ALLOWED, "You are signed in, but are a member of no project.")
    return Caller(project.pk, project.slug, None, user.pk, "ws", session=Session(session_key))
