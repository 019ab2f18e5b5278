"""Callers' keys: made, shown once, recognised, revoked.

A key is `sk-llmhub-<public id>-<secret>`. Stored are the public id (to find the row) and an HMAC-SHA256 of
the whole key under the hub's pepper, a random secret that lies encrypted in the database: a stolen dump
recognises no key.
"""

import hashlib
import hmac
import re
import secrets
import string
import time
from datetime import datetime, timedelta

from django.utils import timezone

from completions.errors import AuthenticationError, InvalidRequestError, UnavailableError
from completions.models import ApiKey, HubSecret, Project
from completions.types import Caller
from providers.errors import DecryptionError

PREFIX = "sk-llmhub"
KEY_PATTERN = re.compile(r"\Ask-llmhub-([A-Za-z0-9]{12})-([A-Za-z0-9_-]{43})\Z")
ALPHABET = string.ascii_letters + string.digits
PEPPER = "api-key-pepper"
LAST_USED_SECONDS = 60  # how precise last_used_at is; a write per call would cost more than it tells


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
    project: Project, name: str, *, expires_at: datetime | None = None, secret: str | None = None
) -> tuple[ApiKey, str]:
    """The new row and the key itself, which is known only now.

    `secret` brings an own key in the right format.
    """
    full_key = secret or new_secret()
    public_id, _ = parse(full_key)
    row = ApiKey.objects.create(
        project=project,
        name=name,
        public_id=public_id,
        secret_hmac=digest(full_key),
        last4=full_key[-4:],
        expires_at=expires_at,
    )
    return row, full_key


def replace_secret(row: ApiKey, full_key: str) -> None:
    """Give an existing key another secret: what it pays for and its history stay."""
    row.public_id, _ = parse(full_key)
    row.secret_hmac = digest(full_key)
    row.last4 = full_key[-4:]
    row.save(update_fields=["public_id", "secret_hmac", "last4"])


def matches(row: ApiKey, full_key: str) -> bool:
    """Whether `full_key` is this row's key. Constant time."""
    return hmac.compare_digest(row.secret_hmac, digest(full_key))


def authenticate(full_key: str, *, surface: str = "api", request_id: str = "") -> Caller:
    """The caller behind a key.

    Raises AuthenticationError: one message for every reason but expiry and revocation.
    """
    match = KEY_PATTERN.match(full_key)
    row = (
        ApiKey.objects.select_related("project").filter(public_id=match[1]).first()
        if match is not None
        else None
    )
    if row is None or not matches(row, full_key):
        raise AuthenticationError(f"Incorrect API key provided: {full_key[:6]}…. Keys begin with {PREFIX}-.")
    now = timezone.now()
    if row.revoked_at is not None:
        raise AuthenticationError("This API key was revoked.")
    if row.expires_at is not None and row.expires_at <= now:
        raise AuthenticationError("This API key has expired.")
    if not row.project.enabled:
        raise AuthenticationError("The project of this API key is disabled.")
    _touch(row, now)
    return Caller(row.project_id, row.project.slug, api_key_id=row.pk, surface=surface, request_id=request_id)


def revoke(row: ApiKey) -> None:
    """From now on the key is refused. Revoking again keeps the first time."""
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])


def _touch(row: ApiKey, now: datetime) -> None:
    if row.last_used_at is None or now - row.last_used_at > timedelta(seconds=LAST_USED_SECONDS):
        ApiKey.objects.filter(pk=row.pk).update(last_used_at=now)


def digest(full_key: str) -> str:
    """HMAC-SHA256 of a key under the hub's pepper, in hex."""
    return hmac.new(_pepper(), full_key.encode(), hashlib.sha256).hexdigest()


_pepper_kept: tuple[float, bytes] = (0.0, b"")
PEPPER_SECONDS = 60.0  # how long a process trusts the pepper it read: a restored database may bring another


def _pepper() -> bytes:
    """The hub's pepper, made at first use. Raises UnavailableError when it cannot be decrypted."""
    global _pepper_kept
    read_at, value = _pepper_kept
    if value and time.monotonic() - read_at < PEPPER_SECONDS:
        return value
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
