"""`manage.py serve`: the hub's own server, in one process or WEB_CONCURRENCY of them."""

import contextlib
import errno
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from prometheus_client import multiprocess
from uvicorn.supervisors import Multiprocess

from completions.checks import TAG
from completions.management.commands.bootstrap import hub_url, prepare
from completions.sockets import SLOW_SECONDS

BACKLOG = 2048  # connections the kernel keeps while the process is busy
MOST_CONNECTIONS = 20_000  # of one process, idle ones and websockets included; the next is told 503
# Of websockets. A page that reads, but slowly, answers a ping late: it has as long as it may take nothing.
WEBSOCKETS: dict[str, Any] = {
    "ws": "websockets-sansio",
    "ws_max_size": 1 << 20,  # bytes of one message; longer ones close it (1009)
    "ws_ping_interval": 20.0,  # seconds
    "ws_ping_timeout": SLOW_SECONDS,
    "ws_per_message_deflate": False,  # tokens are a few bytes each: it would cost more than it saves
}
FIGURES = "PROMETHEUS_MULTIPROC_DIR"  # Prometheus' own name for it
STOP_SECONDS = 5  # for what is still open once the calls have finished (see LLMHUB_DRAIN_SECONDS)
KEEP_ALIVE_SECONDS = 65  # longer than load balancers keep their idle connections, so that they close first


class Server(uvicorn.Server):
    """uvicorn's server; says so once it accepts connections."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self.announce()


class Workers(Multiprocess):
    """uvicorn's processes. Of one that is gone `/metrics` tells what it did, not what it was doing."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._seen: set[int | None] = set()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        alive = {process.pid for process in self.processes}
        for gone in self._seen - alive:
            multiprocess.mark_process_dead(gone)  # type: ignore[no-untyped-call]
        self._seen = alive


class Command(BaseCommand):
    help = "Serve the admin, the API and the pages on HOST:PORT. Ctrl-C stops it."
    requires_system_checks = (TAG,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--bootstrap",
            action="store_true",
            help="first migrate, and set up what an empty hub lacks (see: manage.py bootstrap --help)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with contextlib.closing(listener(settings.HOST, settings.PORT)) as sock:
            if options["bootstrap"]:
                prepare(self.stdout)
            self.serve(sock)

    def serve(self, sock: socket.socket) -> None:
        config = server_config()
        if config.workers > 1:
            self.announce()
            with shared_figures():
                Workers(config, sockets=[sock]).run()
            return
        server = Server(config, self.announce)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it anew after its own clean stop
            server.run(sockets=[sock])
        if not server.started:
            sys.exit(1)

    def announce(self) -> None:
        self.stdout.write(f"llmhub serves {hub_url()}/ (admin: {hub_url()}/admin/). Ctrl-C stops it.")
        self.stdout.flush()


@contextlib.contextmanager
def shared_figures() -> Iterator[None]:
    """The directory in which processes keep what each of them tells `/metrics`: a new one, for this run.

    One that is given is taken, less what processes that are gone were doing.
    """
    if not (given := os.environ.get(FIGURES)):
        with tempfile.TemporaryDirectory(prefix="llmhub-metrics-", ignore_cleanup_errors=True) as made:
            os.environ[FIGURES] = made
            yield
        return
    directory = Path(given)
    directory.mkdir(parents=True, exist_ok=True)
    for figures in directory.glob("gauge_live*_*.db"):
        if not _runs(int(figures.stem.rpartition("_")[2])):
            figures.unlink(missing_ok=True)
    yield


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # as another user
        pass
    return True


def server_config() -> uvicorn.Config:
    """How uvicorn runs the hub; its own defaults have no limit on connections or on the time to stop."""
    behind_proxy = bool(settings.CSRF_TRUSTED_ORIGINS)
    return uvicorn.Config(
        "llmhub.asgi:application",
        workers=settings.WEB_CONCURRENCY,
        lifespan="on",
        http="llmhub.protocol:Protocol",
        **WEBSOCKETS,
        log_config=None,
        log_level=None if settings.DEBUG else "warning",
        access_log=settings.DEBUG,
        server_header=False,
        proxy_headers=behind_proxy,
        backlog=BACKLOG,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def listener(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CommandError when the address is taken, not ours, or not allowed."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CommandError(
            f"HOST={host} is not an address of this machine ({error}). Try HOST=127.0.0.1."
        ) from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.set_inheritable(True)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise CommandError(_refusal(host, port, error)) from None
    return sock


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else port - 1
        return f"Port {port} of {host} is taken by another program. Choose another one: PORT={other} make run"
    if error.errno == errno.EACCES:
        return f"PORT={port} needs privileges this process lacks. Choose one above 1023: PORT=8000 make run"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"HOST={host} is not an address of this machine. Try HOST=127.0.0.1, or HOST=0.0.0.0 for all."
    return f"Cannot listen on {host}:{port}: {error.strerror}."
