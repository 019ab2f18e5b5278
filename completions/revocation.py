"""Running calls whose key or session is no longer in force: they end within seconds.

A key is revoked, or expires; a person signs out, is deactivated, has a new password, leaves the project; the
project is disabled. The pipeline says which calls run (`watch`, `unwatch`). While there are any, one task per
event loop compares their keys with what this process knows of them, and their sessions with the database,
once a second.
"""

import asyncio
import logging
from collections.abc import Collection
from contextvars import Context
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from completions import accounts, keys
from completions.errors import AuthenticationError, LLMServiceError
from completions.models import Project
from completions.types import Caller, Session
from providers import database
from providers.loops import PerLoop

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MOST_PEOPLE = 400  # looked at together: old SQLite takes 999 parameters


class NoMemberError(AuthenticationError):
    """The person is signed in, but may not use the project any more."""


class Running(Protocol):
    """A call on its way. `fail` ends it: its row is settled, and its reader gets the error."""

    async def fail(self, error: LLMServiceError) -> None: ...


class Person(NamedTuple):
    """Somebody at a project, by a session; None: whose session is not known."""

    user_id: int
    project_id: int
    session: Session | None


Bond = int | Person  # what a call depends on: a key's id, or a person's session


def bond_of(caller: Caller) -> Bond | None:
    """None for who has neither a key nor a session: a Python call."""
    if caller.api_key_id is not None:
        return caller.api_key_id
    if caller.user_id is None or caller.session is None:
        return None
    return Person(caller.user_id, caller.project_id, caller.session)


class _Watcher:
    """The running calls of one event loop, by what they depend on."""

    def __init__(self) -> None:
        self.runs: dict[Bond, set[Running]] = {}
        self.task: asyncio.Task[None] | None = None
        self.ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        # An empty context: the one here is a call's, whose thread may be gone before the next look.
        self.task = asyncio.get_running_loop().create_task(
            self.look(), name="revoked keys", context=Context()
        )

    async def look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.runs = {bond: runs for bond, runs in self.runs.items() if runs}
            if not self.runs:
                return
            people = [bond for bond in self.runs if isinstance(bond, Person)]
            for bond in list(self.runs):
                if isinstance(bond, int):
                    await self.judge(bond)
            for first in range(0, len(people), MOST_PEOPLE):
                await self.judge_people(people[first : first + MOST_PEOPLE])

    async def judge(self, key_id: int) -> None:
        try:
            key = await accounts.akey(key_id)
            project = None if key is None else await accounts.aproject(key.project_id)
        except Exception as error:  # noqa: BLE001 - the database is away; the call goes on until it is back
            logger.warning("Whether key %s is still in force could not be seen: %s", key_id, error)
            return
        if (refused := keys.refusal(key, project, timezone.now())) is not None:
            self.refuse(key_id, refused)

    async def judge_people(self, people: Collection[Person]) -> None:
        try:
            refusals = await sync_to_async(_refusals)(people)
        except Exception as error:  # noqa: BLE001 - as with keys
            logger.warning("Whether %s sessions are still in force could not be seen: %s", len(people), error)
            return
        for person, refused in refusals.items():
            self.refuse(person, refused)

    def refuse(self, bond: Bond, refused: AuthenticationError) -> None:
        for run in self.runs.pop(bond, set()):
            self.end(run, refused)

    def end(self, run: Running, refused: AuthenticationError) -> None:
        """In a task of its own: a settlement that waits must not keep the other calls running."""
        task = asyncio.get_running_loop().create_task(run.fail(refused))
        self.ending.add(task)
        task.add_done_callback(self.ending.discard)


_watchers = PerLoop(_Watcher)


def watch(run: Running, bond: Bond | None) -> None:
    """End `run` with an AuthenticationError once its bond is no longer in force. Then call `unwatch`."""
    if bond is not None:
        watcher = _watchers.get()
        watcher.runs.setdefault(bond, set()).add(run)
        if watcher.task is None or watcher.task.done():
            watcher.start()


def unwatch(run: Running, bond: Bond | None) -> None:
    """The call has ended. Doing so twice, or for one that was never watched, changes nothing."""
    if bond is not None:
        _watchers.get().runs.get(bond, set()).discard(run)


# --- people


def refusal(caller: Caller) -> AuthenticationError | None:
    """Why a person may not call any more; None: they may. Reads the database."""
    person = Person(caller.user_id or 0, caller.project_id, caller.session)
    return _refusals([person]).get(person)


def _refusals(people: Collection[Person]) -> dict[Person, AuthenticationError]:
    """Those who may not call any more, and why: three queries for all, and one for each session."""
    with database.glance():
        users = get_user_model()._default_manager.in_bulk({person.user_id for person in people})
        enabled = Project.objects.filter(enabled=True, pk__in={person.project_id for person in people})
        projects = set(enabled.values_list("pk", flat=True))
        members = set(enabled.filter(members__in=list(users)).values_list("members", "pk"))
        refusals: dict[Person, AuthenticationError] = {}
        for person in people:
            user = users.get(person.user_id)
            if user is None or not user.is_active:
                refusals[person] = AuthenticationError("This account is not active any more.")
            elif person.session is not None and not _is_of(person.session, user):
                refusals[person] = AuthenticationError("Your session has ended. Sign in again.")
            elif person.project_id not in projects or not (
                user.is_superuser or (person.user_id, person.project_id) in members
            ):
                refusals[person] = NoMemberError("You may not use this project any more.")
        return refusals


def _is_of(session: Session, user: Any) -> bool:
    """Whether it is there, has not expired, and was begun with the password that the user has now."""
    store = import_module(settings.SESSION_ENGINE).SessionStore(session.key)
    shown = store.get(HASH_SESSION_KEY) or ""
    hashes = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return store.get(SESSION_KEY) == str(user.pk) and any(constant_time_compare(shown, one) for one in hashes)
