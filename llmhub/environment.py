"""Every setting of llmhub: name, kind, default, meaning. Read once, at start; a wrong value names itself.

`docs/settings.md` is this table in prose form; a test compares the two. Each value may also come from a file:
`NAME_FILE=/path` reads it from there (its last newline is dropped), as container secrets want it.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from llmhub import values

BASE_DIR = values.BASE_DIR
SECRET = frozenset(
    {"DATABASE_URL", "REDIS_URL", "LLMHUB_SECRET_KEY", "LLMHUB_ENCRYPTION_KEYS", "LLMHUB_METRICS_TOKEN"}
)
# Callers are told within a second that the database is away, and it is used again as soon as it is back. A
# connection that cannot be made is not tried again after ever longer pauses, but when it is next wanted.
POOL = {"min_size": 1, "max_size": 10, "timeout": 0.7, "reconnect_timeout": 0}


@dataclass(frozen=True)
class Setting:
    """One environment variable: how it is parsed, and what is used when it is absent."""

    name: str
    parse: Callable[[str], Any]
    default: str
    meaning: str
    example: str

    def read(self) -> Any:
        raw = _raw(self.name)
        try:
            return self.parse(self.default if raw is None else raw)
        except (ValueError, ZoneInfoNotFoundError) as error:
            shown = "(not shown: it may hold a password)" if self.name in SECRET else repr(raw)
            raise ImproperlyConfigured(
                f"{self.name}={shown} is not valid: {error}. Set it to something like "
                f"{self.name}={self.example}, or unset it to use {self.default!r}."
            ) from (None if self.name in SECRET else error)


def _raw(name: str) -> str | None:
    """The variable's text, from the environment or from the file that NAME_FILE names."""
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        value = os.environ.get(name)
        return value if value else None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"{name}_FILE names {path!r}, which cannot be read ({error.strerror}). "
            f"Make the file readable for this process, or unset {name}_FILE."
        ) from error


SETTINGS = (
    Setting("HOST", values.text, "127.0.0.1", "Address the server listens on.", "127.0.0.1"),
    Setting("PORT", values.whole(1, 65535), "8000", "Port the server listens on.", "8000"),
    Setting(
        "DATABASE_URL",
        values.database,
        "",
        "Database; empty: SQLite inside `LLMHUB_DATA_DIR`.",
        "postgres://user:password@host:5432/llmhub",
    ),
    Setting(
        "REDIS_URL",
        values.redis,
        "",
        "Redis for the cache and for more than one process; empty: in-process memory.",
        "redis://host:6379/0",
    ),
    Setting(
        "WEB_CONCURRENCY",
        values.whole(1, 256),
        "1",
        "Server processes. More than one needs `REDIS_URL` and PostgreSQL.",
        "4",
    ),
    Setting(
        "LLMHUB_DATA_DIR",
        values.directory,
        ".llmhub",
        "Where the embedded hub keeps its database, key files and spool.",
        "/var/lib/llmhub",
    ),
    Setting(
        "LLMHUB_SECRET_KEY",
        values.text,
        "",
        "Django's secret key (sessions, CSRF). Empty: a 0600 file in `LLMHUB_DATA_DIR`, when embedded.",
        "a-long-random-text",
    ),
    Setting(
        "LLMHUB_ENCRYPTION_KEYS",
        values.names,
        "",
        "Secrets that encrypt provider keys, newest first, comma-separated. Empty: a 0600 file in "
        "`LLMHUB_DATA_DIR`, when embedded.",
        "newest-random-text,older-random-text",
    ),
    Setting(
        "LLMHUB_ALLOWED_HOSTS",
        values.names,
        "",
        "Host names the hub answers to, besides localhost and `HOST`.",
        "hub.example.com",
    ),
    Setting(
        "LLMHUB_TRUSTED_ORIGINS",
        values.origins,
        "",
        "Origins whose pages may post to the admin behind a TLS proxy.",
        "https://hub.example.com",
    ),
    Setting(
        "LLMHUB_EGRESS_ALLOW",
        values.host_ports,
        "",
        "Private upstreams the hub may call, as host:port or host:*.",
        "10.0.0.5:8000,ollama.internal:11434",
    ),
    Setting(
        "LLMHUB_TIME_ZONE",
        values.time_zone,
        "UTC",
        "Time zone of the admin and of new projects.",
        "Europe/Berlin",
    ),
    Setting("LLMHUB_LOG_LEVEL", values.level, "INFO", "Least severe level that is logged.", "INFO"),
    Setting(
        "LLMHUB_MAX_BODY_BYTES",
        values.whole(1024, 1 << 30),
        str(20 << 20),
        "Largest request body that is read.",
        "20971520",
    ),
    Setting(
        "LLMHUB_DEFAULT_PROJECT",
        values.text,
        "default",
        "Slug of the project that pays for Python calls which name none.",
        "default",
    ),
    Setting(
        "LLMHUB_LEDGER_DAYS",
        values.whole(0, 36_500),
        "0",
        "Days that calls stay in the ledger; their hourly sums stay for good. 0: for ever.",
        "400",
    ),
    Setting(
        "LLMHUB_CACHE",
        values.cache_mode,
        "deterministic",
        "Calls that the cache answers where neither model nor key says: deterministic (temperature 0, a "
        "seed, embeddings), on (all), or off.",
        "deterministic",
    ),
    Setting(
        "LLMHUB_CACHE_TTL_SECONDS",
        values.whole(1, 366 * 86_400),
        "86400",
        "How long a cached answer is given, where neither model nor request says.",
        "86400",
    ),
    Setting(
        "LLMHUB_CACHE_MEMORY_BYTES",
        values.whole(1 << 20, 1 << 40),
        str(64 << 20),
        "What the cache may hold in memory; then the longest unused goes. Not with `REDIS_URL`.",
        "67108864",
    ),
    Setting(
        "LLMHUB_CACHE_ENTRY_BYTES",
        values.whole(1024, 1 << 30),
        str(1 << 20),
        "Largest answer that is cached.",
        "1048576",
    ),
    Setting(
        "LLMHUB_CACHE_STORED_BYTES",
        values.whole(1 << 20, 1 << 50),
        str(1 << 30),
        "What cached answers may take in the database; then the longest unused go.",
        "1073741824",
    ),
    Setting(
        "LLMHUB_SEMANTIC_CACHE",
        values.text,
        "",
        "Embedding model, as callers name it, by which questions that mean the same share an answer, for "
        "models that allow it. Empty: only equal questions do.",
        "openai/text-embedding-3-small",
    ),
    Setting(
        "LLMHUB_MOST_CALLS",
        values.whole(1, 1_000_000),
        "10000",
        "Calls that one process runs at a time; further ones are told 503.",
        "10000",
    ),
    Setting(
        "LLMHUB_STREAM_GRACE_SECONDS",
        values.whole(0, 3600),
        "30",
        "How long a stream goes on after its last websocket was lost.",
        "30",
    ),
    Setting(
        "LLMHUB_SOCKET_IDLE_SECONDS",
        values.whole(1, 86_400),
        "3600",
        "After that a websocket on which nothing happens is closed.",
        "3600",
    ),
    Setting(
        "LLMHUB_SOCKET_MESSAGES_PER_SECOND",
        values.whole(1, 10_000),
        "20",
        "Messages that one websocket may send, in the long run.",
        "20",
    ),
    Setting(
        "LLMHUB_STREAMS_PER_SOCKET", values.whole(1, 1000), "16", "Streams that run on one websocket.", "16"
    ),
    Setting(
        "LLMHUB_SOCKETS_PER_KEY",
        values.whole(1, 1_000_000),
        "10000",
        "Websockets that one key may have open at a process.",
        "10000",
    ),
    Setting(
        "LLMHUB_SOCKETS_PER_USER",
        values.whole(1, 1_000_000),
        "50",
        "Websockets that one signed-in person may have open at a process.",
        "50",
    ),
    Setting(
        "LLMHUB_CORS_ORIGINS",
        values.origins,
        "",
        "Origins whose pages may call the hub with a key or ticket. Empty: none.",
        "https://app.example.com",
    ),
    Setting(
        "LLMHUB_METRICS_TOKEN",
        values.text,
        "",
        "What `/metrics` asks for as a bearer token. Empty: it answers only while `HOST` is loopback, "
        "and not through a proxy.",
        "a-long-random-text",
    ),
    Setting(
        "LLMHUB_DRAIN_SECONDS",
        values.whole(0, 3600),
        "60",
        "How long running calls may finish after SIGTERM.",
        "60",
    ),
    Setting(
        "LLMHUB_DEBUG",
        values.flag,
        "false",
        "Django's debug pages. Never on a hub that others reach.",
        "false",
    ),
)


def read_all() -> dict[str, Any]:
    """Every setting by name, parsed. Raises ImproperlyConfigured for the first wrong value."""
    return {setting.name: setting.read() for setting in SETTINGS}


def secret_from_file(path: Path, embedded: bool, name: str) -> str:
    """The secret kept in `path`, made on first use (0600) when the hub runs embedded.

    Raises ImproperlyConfigured where the file is readable by others, or is absent on a hub that is not
    embedded: several machines must share one secret, so none may invent its own.
    """
    if path.exists():
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ImproperlyConfigured(f"{path} is readable by others. Run: chmod 600 {path}")
        return path.read_text().strip()
    if not embedded:
        raise ImproperlyConfigured(
            f"{name} is not set. A hub with its own DATABASE_URL needs it in the environment "
            f"(or {name}_FILE), the same on every machine. Make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = get_random_secret_key().replace(",", "-")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was first: its secret is the one
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    return secret


def database(url: str, data_dir: Path) -> dict[str, Any]:
    """Django's DATABASES entry: PostgreSQL with psycopg's pool, or SQLite in WAL with full fsync."""
    if not url.startswith("postgres"):
        path = data_dir / "llmhub.sqlite3" if not url else environ.Env.db_url_config(url)["NAME"]
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(path),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 5,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
            },
        }
    config = dict(environ.Env.db_url_config(url))
    options = {key: value for key, value in config.get("OPTIONS", {}).items() if key != "pool"}
    config["OPTIONS"] = options | {"pool": POOL}
    config["CONN_MAX_AGE"] = 0
    config["CONN_HEALTH_CHECKS"] = True  # a database that was away leaves dead connections in the pool
    return config


def cache(redis_url: str, memory_bytes: int) -> dict[str, Any]:
    """Django's CACHES entry: django-redis where Redis is given, else memory of this process."""
    if not redis_url:
        return {
            "BACKEND": "completions.cache.memory.MemoryCache",
            "LOCATION": "llmhub",
            "OPTIONS": {"MOST_BYTES": memory_bytes},
        }
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": redis_url,
        "KEY_PREFIX": "llmhub",
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1, "IGNORE_EXCEPTIONS": True},
    }


def channel_layer(redis_url: str) -> dict[str, Any]:
    """Django Channels' layer, for what processes tell each other: by Redis, or within this one."""
    if not redis_url:
        return {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [redis_url]}}
