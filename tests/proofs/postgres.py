"""A PostgreSQL of one's own, to be stopped and started."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; Debian keeps it off the path. None: not installed here."""
    versions = sorted(DEBIAN.glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    found = versions[-1] if versions else shutil.which("pg_ctl")
    return Path(found).parent if found else None


class Postgres:
    """A server on an ephemeral port, its data in `folder`."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._data, self._log, self._binaries = folder / "data", folder / "log", binaries
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self._data.mkdir()
        self._become: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            for path in (folder, self._data):
                shutil.chown(path, "postgres")
            self._become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-l", str(self._log), "-o", options)

    def stop(self) -> None:
        """Every connection ends at once."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    @property
    def runs(self) -> bool:
        return (self._data / "postmaster.pid").exists()

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._become, str(self._binaries / program), *arguments, "-D", str(self._data)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/")


@contextmanager
def own_postgres(binaries: Path) -> Iterator[Postgres]:
    """A running server that does not outlive the test."""
    with tempfile.TemporaryDirectory(prefix="llmhub-postgres-") as folder:
        server = Postgres(Path(folder), binaries)
        server.start()
        try:
            yield server
        finally:
            if server.runs:
                server.stop()
