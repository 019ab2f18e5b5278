"""A Redis of one's own, to be filled with anything, paused, stopped and started."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis as redis_py

from tests.waiting import eventually

PROGRAM = shutil.which("redis-server")
START_SECONDS = 10.0


class OwnRedis:
    """A server on an ephemeral port that keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self.client: Any = redis_py.Redis(port=self.port, socket_timeout=5)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Empty. Returns once it answers."""
        assert PROGRAM is not None
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._folder), "--loglevel", "warning"]
        command = [PROGRAM, "--bind", "127.0.0.1", "--port", str(self.port), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        assert eventually(self._answers, START_SECONDS), "Redis did not start"

    def stop(self) -> None:
        """At once: connections break, and new ones are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It answers nothing, and refuses nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def names(self, pattern: str) -> list[str]:
        """Of keys, as Redis has them."""
        return sorted(name.decode() for name in self.client.scan_iter(match=pattern))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis_py.RedisError:
            return False


@contextmanager
def own_redis(folder: Path) -> Iterator[OwnRedis]:
    """A running server that does not outlive the test."""
    server = OwnRedis(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.client.close()
