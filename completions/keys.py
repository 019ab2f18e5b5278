"""Callers' keys: made, shown once, recognised, rotated, revoked; and which models each may call.

A key is `sk-llmhub-<public id>-<secret>`. Stored are the public id (to find the row) and an HMAC-SHA256 of
the whole key under the hub's pepper, a random secret that lies encrypted in the database: a stolen dump
recognises no key. A key that this process knows is recognised without reading the database.
"""

import hashlib
import hmac
import logging
import re
import secrets
import string
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.models import Q
from django.utils import timezone

from completions import accounts
from completions.accounts import KeyFacts, ProjectFacts
from completions.errors import AuthenticationError, InvalidRequestError, UnavailableError
from completions.models import ApiKey, HubSecret, Project
from completions.types import Caller
from providers import database
from providers.errors import DecryptionError
from providers.types import Target

logger = logging.getLogger(__name__)

PREFIX = "sk-llmhub"
KEY_PATTERN = re.compile(r"\Ask-llmhub-([A-Za-z0-9]{12})-([A-Za-z0-9_-]{43})\Z")
PUBLIC_ID = slice(len(PREFIX) + 1, len(PREFIX) + 13)  # where it stands in a key
ALPHABET = string.ascii_letters + string.digits
PEPPER = "api-key-pepper"
LAST_USED_SECONDS = 60.0  # how precise last_used_at is; a write per call would cost more than it tells
FLUSH_SECONDS = 5.0  # uses are written together, so long after the first of them
LONGEST_OVERLAP = timedelta(days=90)


# --- making and changing keys


def parse(full_key: str) -> tuple[str, str]:
    """The public id and secret of a key. Raises InvalidRequestError when it is not in a key's format."""
    if (match := KEY_PATTERN.match(full_key)) is None:
        raise InvalidRequestError(
            f"A key has the form {PREFIX}-<12 letters or digits>-<43 URL-safe characters>.", param="secret"
        )
    return match[1], match[2]


def new_secret() -> str:
    """A fresh key in full: 71 bits of public id, 256 bits of secret."""
    public_id = "".join(secrets.choice(ALPHABET) for _ in range(12))
    return f"{PREFIX}-{public_id}-{secrets.token_urlsafe(32)}"


def create_key(
    project: Project,
    name: str,
    *,
    expires_at: datetime | None = None,
    secret: str | None = None,
    **facts: Any,
) -> tuple[ApiKey, str]:
    """The new row and the key itself, which is known only now.

    `secret` brings an own key in the right format; `facts` are further fields of the row.
    """
    row = ApiKey(project=project, name=name, expires_at=expires_at, **facts)
    return row, issue(row, secret)


def issue(row: ApiKey, secret: str | None = None) -> str:
    """Save a new row with a secret of its own, or the one that is brought; the key in full."""
    full_key = secret or new_secret()
    _give(row, full_key)
    row.save(force_insert=True)
    return full_key


def replace_secret(row: ApiKey, full_key: str) -> None:
    """Give an existing key another secret at once: what it pays for and its history stay."""
    _give(row, full_key)
    _forget_old(row)
    row.save(update_fields=SECRET_FIELDS)


def rotate(row: ApiKey, overlap: timedelta) -> str:
    """Give a key a new secret and return the key in full; the one before works for `overlap` longer.

    Rotating again during an overlap drops the oldest. Raises InvalidRequestError for a revoked key, and for
    an overlap below nothing or above LONGEST_OVERLAP.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidRequestError(
            f"The old key can work for at most {LONGEST_OVERLAP.days} days longer.", param="overlap"
        )
    full_key = new_secret()
    with transaction.atomic():
        row.refresh_from_db(from_queryset=ApiKey.objects.select_for_update())
        if row.revoked_at is not None:
            raise InvalidRequestError("This key was revoked. Make a new one instead.", param="id")
        if overlap:
            row.old_public_id, row.old_secret_hmac = row.public_id, row.secret_hmac
            row.old_valid_until = timezone.now() + overlap
        else:
            _forget_old(row)
        _give(row, full_key)
        row.save(update_fields=SECRET_FIELDS)
    return full_key


SECRET_FIELDS = ("public_id", "secret_hmac", "last4", "old_public_id", "old_secret_hmac", "old_valid_until")


def _give(row: ApiKey, full_key: str) -> None:
    row.public_id, _ = parse(full_key)
    row.secret_hmac = digest(full_key)
    row.last4 = full_key[-4:]


def _forget_old(row: ApiKey) -> None:
    row.old_public_id, row.old_secret_hmac, row.old_valid_until = None, "", None


def matches(row: ApiKey, full_key: str) -> bool:
    """Whether `full_key` is this row's present key. Constant time."""
    return hmac.compare_digest(row.secret_hmac, digest(full_key))


def owner_of(public_id: str) -> ApiKey | None:
    """The key that has this public id, or had it before a rotation."""
    return ApiKey.objects.filter(Q(public_id=public_id) | Q(old_public_id=public_id)).first()


def revoke(row: ApiKey) -> None:
    """From now on the key is refused, and its running calls end. Revoking again keeps the first time."""
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])


# --- recognising a caller


def presented(authorization: str, x_api_key: str) -> str | None:
    """The API key of a request's two headers, None where neither holds one. Never looked for in the URL."""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return x_api_key.strip() or None


def authenticate(full_key: str, *, surface: str = "api", request_id: str = "") -> Caller:
    """The caller behind a key.

    Raises AuthenticationError: one message for every reason but expiry, rotation and revocation.
    """
    public_id = _public_id(full_key)
    key = accounts.key_by_public_id(public_id)
    project = None if key is None else accounts.project(key.project_id)
    key, project = _recognised(full_key, key, project, _pepper())
    return Caller(project.id, project.slug, api_key_id=key.id, surface=surface, request_id=request_id)


async def aauthenticate(full_key: str, *, surface: str = "api", request_id: str = "") -> Caller:
    """`authenticate` for coroutines: no thread and no database where the key is known."""
    public_id = _public_id(full_key)
    key = await accounts.akey_by_public_id(public_id)
    project = None if key is None else await accounts.aproject(key.project_id)
    pepper = _fresh_pepper() or await sync_to_async(_pepper)()
    key, project = _recognised(full_key, key, project, pepper)
    return Caller(project.id, project.slug, key.id, None, surface, request_id)


def _public_id(full_key: str) -> str:
    if KEY_PATTERN.match(full_key) is None:
        raise _incorrect(full_key)
    return full_key[PUBLIC_ID]


def _incorrect(full_key: str) -> AuthenticationError:
    return AuthenticationError(f"Incorrect API key provided: {full_key[:6]}…. Keys begin with {PREFIX}-.")


def _recognised(
    full_key: str, key: KeyFacts | None, project: ProjectFacts | None, pepper: bytes
) -> tuple[KeyFacts, ProjectFacts]:
    """The key and project, once the secret is right and both are in force. The use is noted."""
    seen = _digest(full_key, pepper)  # for strangers too: how long a refusal takes tells nothing
    if key is None or project is None:
        raise _incorrect(full_key)
    rotated_away = key.public_id != _public_id(full_key)
    if not hmac.compare_digest(key.old_secret_hmac if rotated_away else key.secret_hmac, seen):
        raise _incorrect(full_key)
    now = datetime.now(UTC)
    if rotated_away and (key.old_valid_until is None or key.old_valid_until <= now):
        raise AuthenticationError("This API key was replaced by another, and its time is over.")
    if (refused := refusal(key, project, now)) is not None:
        raise refused
    _note_use(key.id, now)
    return key, project


def refusal(key: KeyFacts | None, project: ProjectFacts | None, now: datetime) -> AuthenticationError | None:
    """Why a key is not in force, whether it is presented or has a call running; None: it is."""
    if key is None or project is None or key.revoked_at is not None:
        return AuthenticationError("This API key was revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        return AuthenticationError("This API key has expired.")
    if not project.enabled:
        return AuthenticationError("The project of this API key is disabled.")
    return None


# --- what a key may call


def allows(key: KeyFacts, target: Target) -> bool:
    """Whether a key may call a target: its list names the model, plainly or as provider/model."""
    names = (target.public_model, f"{target.endpoint.provider}/{target.public_model}")
    return not key.allowed_models or not key.allowed_models.isdisjoint(names)


def permitted(targets: Sequence[Target], api_key_id: int | None) -> tuple[Target, ...]:
    """Those of `targets` that a key may call; all of them for a caller without a key."""
    return tuple(targets) if api_key_id is None else allowed(targets, accounts.key(api_key_id))


async def apermitted(targets: Sequence[Target], api_key_id: int | None) -> tuple[Target, ...]:
    """`permitted` for coroutines."""
    return tuple(targets) if api_key_id is None else allowed(targets, await accounts.akey(api_key_id))


def allowed(targets: Sequence[Target], key: KeyFacts | None) -> tuple[Target, ...]:
    """Those of `targets` that `key` may call."""
    if key is None:
        return ()
    return tuple(targets if not key.allowed_models else (one for one in targets if allows(key, one)))


# --- when a key was used


class _Uses:
    """Uses not yet written. A thread of its own writes them, so that no call waits for it."""

    lock = threading.Lock()
    noted: ClassVar[dict[int, float]] = {}  # by key, monotonic
    waiting: ClassVar[dict[int, datetime]] = {}
    timer: threading.Timer | None = None


def _note_use(key_id: int, now: datetime) -> None:
    clock = time.monotonic()
    if clock - _Uses.noted.get(key_id, float("-inf")) < LAST_USED_SECONDS:
        return
    with _Uses.lock:
        _Uses.noted[key_id] = clock
        _Uses.waiting[key_id] = now
        if _Uses.timer is None:
            _Uses.timer = threading.Timer(FLUSH_SECONDS, _flush_in_thread)
            _Uses.timer.daemon = True
            _Uses.timer.start()


def flush_uses() -> None:
    """Write the uses that wait: before a process ends, or to read them."""
    with _Uses.lock:
        waiting = dict(_Uses.waiting)
        _Uses.waiting.clear()
        if _Uses.timer is not None:
            _Uses.timer.cancel()
            _Uses.timer = None
        oldest = time.monotonic() - LAST_USED_SECONDS
        for key_id in [key_id for key_id, at in _Uses.noted.items() if at < oldest]:
            del _Uses.noted[key_id]
    by_second: dict[datetime, list[int]] = {}
    for key_id, at in waiting.items():
        by_second.setdefault(at.replace(microsecond=0), []).append(key_id)
    if by_second:
        with transaction.atomic():
            for at, key_ids in by_second.items():
                ApiKey.objects.filter(pk__in=key_ids).exclude(last_used_at__gt=at).update(last_used_at=at)


def forget_uses() -> None:
    """Drop the uses that wait: for tests."""
    with _Uses.lock:
        _Uses.noted.clear()
        _Uses.waiting.clear()
        if _Uses.timer is not None:
            _Uses.timer.cancel()
            _Uses.timer = None


def _flush_in_thread() -> None:
    try:
        flush_uses()
    except Exception as error:  # noqa: BLE001 - a use that is not noted harms nobody; the next one will be
        logger.warning("When keys were last used could not be written: %s", error)
    finally:
        connections.close_all()


# --- the pepper


def digest(full_key: str) -> str:
    """HMAC-SHA256 of a key under the hub's pepper, in hex."""
    return _digest(full_key, _pepper())


def _digest(full_key: str, pepper: bytes) -> str:
    inner, outer = (half.copy() for half in _halves(pepper))
    inner.update(full_key.encode())
    outer.update(inner.digest())
    return str(outer.hexdigest())


@lru_cache(maxsize=8)
def _halves(pepper: bytes) -> tuple[Any, Any]:
    """Both hashes of HMAC-SHA256 (RFC 2104), begun with the pepper. The library's own begins them for every
    key anew, and lets other threads run meanwhile: together that costs a call as much as its routing.
    """
    block = pepper.ljust(64, b"\0") if len(pepper) <= 64 else hashlib.sha256(pepper).digest().ljust(64, b"\0")
    return (
        hashlib.sha256(bytes(byte ^ 0x36 for byte in block)),
        hashlib.sha256(bytes(byte ^ 0x5C for byte in block)),
    )


_pepper_kept: tuple[float, bytes] = (0.0, b"")
PEPPER_SECONDS = 60.0  # how long a process trusts the pepper it read: a restored database may bring another


def _fresh_pepper() -> bytes:
    """The pepper this process still trusts, else nothing."""
    read_at, value = _pepper_kept
    return value if value and time.monotonic() - read_at < PEPPER_SECONDS else b""


def _pepper() -> bytes:
    """The hub's pepper, made at first use. Raises UnavailableError when it cannot be decrypted."""
    global _pepper_kept
    if value := _fresh_pepper():
        return value
    with database.glance():
        row, _ = HubSecret.objects.get_or_create(name=PEPPER, defaults={"value": secrets.token_urlsafe(32)})
    try:
        value = str(row.value).encode()
    except DecryptionError as error:
        raise UnavailableError(
            "API keys cannot be checked: the hub's own secret cannot be decrypted. Staff must set "
            "LLMHUB_ENCRYPTION_KEYS to the keys this database was written with."
        ) from error
    _pepper_kept = (time.monotonic(), value)
    return value


def forget_pepper() -> None:
    """Read the pepper from the database at the next use."""
    global _pepper_kept
    _pepper_kept = (0.0, b"")
