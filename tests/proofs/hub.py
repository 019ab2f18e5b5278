"""A hub as users run it: `manage.py serve` in a process of its own, to be killed and started again."""

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

ROOT = Path(__file__).resolve().parents[2]
KEY = f"sk-llmhub-proofs000000-{'p' * 43}"
SECRETS = {
    "LLMHUB_SECRET_KEY": "the secret key of a hub that is made to be killed",
    "LLMHUB_ENCRYPTION_KEYS": "the encryption key of a hub that is made to be killed",
}
SET_UP = """
import sys, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
for file in sys.argv[1:]:
    call_command("apply", file)
"""
# A call for 100 tokens of output holds 0.001 dollars, whatever its prompt.
CONFIGURATION = """
providers:
  - slug: scripted
    type: openai_compatible
    base_url: {upstream}
    models: [{{name: model, prices: {{prompt: 0, completion: 10}}}}]
    default_model: model
projects:
  - slug: proofs
    budgets: [{{amount: {amount}, period: total, hard: true}}]
    keys:
"""
A_KEY = """\
      - name: {name}
        secret: {key}
        budgets: [{{amount: {amount}, period: day, hard: false}}]
"""
START_SECONDS = 60


class Hub:
    """On SQLite in `folder`, or on `database_url`."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        self.folder = folder
        self.database_url = database_url
        self.port = _free_port()
        self.log = folder / "hub.log"
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "llmhub.settings",
            "DATABASE_URL": database_url,
            "REDIS_URL": "",
            "LLMHUB_DATA_DIR": str(folder),
            "LLMHUB_EGRESS_ALLOW": "127.0.0.1:*",
            "LLMHUB_LOG_LEVEL": "WARNING",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            **SECRETS,
        }
        self.command = ("manage.py", "serve")  # of Python
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_up(self, upstream: str, amount: str = "1000", keys: Sequence[str] = (KEY,)) -> None:
        """Tables, a provider at `upstream`, and a project that may spend `amount` dollars by its keys."""
        file = self.folder / "hub.yaml"
        made = [
            A_KEY.format(name=f"proofs{number or ''}", key=key, amount=amount)
            for number, key in enumerate(keys)
        ]
        file.write_text(CONFIGURATION.format(upstream=upstream, amount=amount) + "".join(made))
        if not self.database_url:
            shutil.copy(_template(), self.folder / "llmhub.sqlite3")
        self._set_up(file)

    def _set_up(self, *files: Path) -> None:
        done = self._run("-c", SET_UP, *map(str, files))
        assert done.returncode == 0, done.stdout + done.stderr

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self._run("manage.py", *arguments)

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment,
            check=False,
            timeout=120,
            capture_output=True,
            text=True,
        )

    def start(self) -> None:
        """Returns once it accepts connections."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the hub did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """To the running process, which goes on as it will."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """How it ended. Raises TimeoutExpired."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        return code

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows straight from the database."""
        if self.database_url:
            with psycopg.connect(self.database_url) as connection:
                return connection.execute(sql).fetchall()
        with closing(sqlite3.connect(self.folder / "llmhub.sqlite3", timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def is_at_rest(self) -> bool:
        [(running,)] = self.query("SELECT count(*) FROM completions_completion WHERE state = 'running'")
        return not running

    def await_rest(self, seconds: float) -> float:
        """Seconds until no row was running any more. Raises TimeoutError."""
        began = time.monotonic()
        while not self.is_at_rest():
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"rows were still running after {seconds} s:\n{self.log.read_text()}")
            time.sleep(0.1)
        return time.monotonic() - began

    def assert_true(self) -> None:
        """The ledger holds nothing and its audit finds nothing."""
        audit = self.manage("audit_ledger")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        windows = self.query("SELECT held_nano FROM completions_budgetwindow")
        assert windows
        assert {held for (held,) in windows} == {0}


def _template() -> Path:
    """A migrated SQLite file, made once for these migrations: that takes longer than most tests."""
    migrations = sorted(ROOT.glob("*/migrations/*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in migrations)).hexdigest()
    template = Path(tempfile.gettempdir()) / f"llmhub-tests-{os.getuid()}-{digest[:16]}.sqlite3"
    if not template.exists():
        with tempfile.TemporaryDirectory() as folder:
            Hub(Path(folder))._set_up()
            made = Path(folder) / "llmhub.sqlite3"
            with closing(sqlite3.connect(made)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA journal_mode=DELETE")
            shutil.copy(made, template.with_suffix(f".{os.getpid()}"))
            template.with_suffix(f".{os.getpid()}").replace(template)
    return template


@contextmanager
def hub_in(folder: Path, database_url: str = "") -> Iterator[Hub]:
    """A hub that does not outlive the test."""
    hub = Hub(folder, database_url)
    try:
        yield hub
    finally:
        hub.kill()


def ask(marker: str, *, stream: bool) -> dict[str, Any]:
    """The body of a call that its upstream and its row can be told by."""
    return {
        "model": "model",
        "messages": [{"role": "user", "content": "Go on."}],
        "config": {"max_tokens": 100},
        "stream": stream,
        "user": marker,
    }


def session(key: str = KEY, seconds: float = 60) -> aiohttp.ClientSession:
    """A caller with as many connections as it likes."""
    return aiohttp.ClientSession(
        headers={"authorization": f"Bearer {key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=seconds),
    )


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Name and data of each server-sent event."""
    name = ""
    async for line in answer.content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
