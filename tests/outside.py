"""The services outside the process that some tests need: where they are, and why one cannot be used.

`python -m tests.outside postgres redis browser node` says what is missing and exits 1 if anything is.
"""

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

TEST_DATABASE_URL = os.environ.get("TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
TEST_REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
NODE = os.environ.get("NODE", "node")
NODE_CLIENTS = Path(__file__).resolve().parent / "clients" / "node"


@cache
def postgres_problem() -> str:
    """Why PostgreSQL cannot be used here; empty when it can."""
    import psycopg

    try:
        psycopg.connect(TEST_DATABASE_URL, connect_timeout=2).close()
    except psycopg.Error as error:
        return f"no PostgreSQL at TEST_DATABASE_URL={TEST_DATABASE_URL}: {str(error).strip()}"
    return ""


@cache
def redis_problem() -> str:
    """Why Redis cannot be used here; empty when it can."""
    import redis

    client = redis.Redis.from_url(TEST_REDIS_URL, socket_connect_timeout=1, socket_timeout=1)
    try:
        client.ping()
    except redis.RedisError as error:
        return f"no Redis at TEST_REDIS_URL={TEST_REDIS_URL}: {error}"
    finally:
        client.close()
    return ""


def browser_problem() -> str:
    """Why no browser can be started here; empty when one can."""
    return "" if os.access(CHROMIUM, os.X_OK) else f"no browser at CHROMIUM={CHROMIUM}"


def node_problem() -> str:
    """Why the clients of tests/clients/node cannot be run here; empty when they can."""
    if shutil.which(NODE) is None:
        return f"no Node.js at NODE={NODE}"
    if not (NODE_CLIENTS / "node_modules" / ".package-lock.json").is_file():
        return "the clients of tests/clients/node are not installed: run npm ci there"
    return ""


PROBLEMS: dict[str, Callable[[], str]] = {
    "postgres": postgres_problem,
    "redis": redis_problem,
    "browser": browser_problem,
    "node": node_problem,
}


def main(names: list[str]) -> int:
    missing = [problem for name in names if (problem := PROBLEMS[name]())]
    for problem in missing:
        sys.stderr.write(f"{problem}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
