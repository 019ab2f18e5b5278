"""Programs that the benchmarks start: compiled, pinned to a core, watched in /proc, ended with us."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
START_SECONDS = 40.0
STOP_SECONDS = 10.0
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class NotMeasured(Exception):
    """Why a figure cannot be had, in one line for the table (less the page of HTML that a 404 may bring)."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.partition("<!")[0].split()).rstrip(": ")[:200])


@dataclass(frozen=True)
class Tools:
    """The programs in C, as built for this run."""

    upstream: Path
    client: Path


def compiled(folder: Path) -> Tools:
    """Build the upstream and the load in `folder`; where that cannot be, end with a word that says why."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        sys.exit(
            "The benchmarks' upstream and load are written in C, and there is neither gcc nor cc here. "
            "On Debian and Ubuntu: apt-get install gcc libc6-dev"
        )
    tools = Tools(folder / "upstream", folder / "client")
    for program, names in ((tools.upstream, ("upstream",)), (tools.client, CLIENT)):
        command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program)]
        built = subprocess.run(
            [*command, *(str(HERE / f"{name}.c") for name in names)],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            sys.exit(f"{compiler} cannot build {program.name}:\n{built.stderr}")
    return tools


CLIENT = ("client", "client_http", "client_ws")


def cores() -> tuple[int, int]:
    """The core of the server under test, and that of everything else; one machine's only core is both."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[min(1, len(available) - 1)]


SERVER_CORE, LOAD_CORE = cores()


def start(
    command: list[str], core: int, environment: Mapping[str, str], log: Path, *, talks: bool = False
) -> "subprocess.Popen[str]":
    """A process on one core that ends when this one does. What it says goes to `log`; with `talks`, to us."""

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, {core})

    with log.open("w") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else file,
            stderr=file,
            text=True,
            preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
        )


@dataclass(frozen=True)
class Server:
    """A process of ours that listens."""

    pid: int
    port: int
    start_seconds: float


@contextmanager
def serving(
    command: list[str], port: int, core: int, environment: Mapping[str, str], log: Path
) -> Iterator[Server]:
    """A server from when its port answers. Raises NotMeasured where it does not."""
    began = time.monotonic()
    process = start(command, core, environment, log)
    try:
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > began + START_SECONDS:
                raise NotMeasured(f"{log.stem} did not start: {last_words(log)}")
            time.sleep(0.01)
        yield Server(process.pid, port, time.monotonic() - began)
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def last_words(log: Path) -> str:
    """The last line that a program wrote, which names what went wrong."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, those that ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_SECONDS


def core_seconds(core: int) -> float:
    """What all processes of this machine used of a core so far, and what its hypervisor gave to others."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return sum(int(ticks[place]) for place in (0, 1, 2, 7)) * TICK_SECONDS
    return 0.0


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def environment_of(**own: str) -> dict[str, str]:
    """This process's environment less all that would set up a hub, and `own`."""
    hubs = ("LLMHUB_", "DATABASE_URL", "REDIS_URL", "HOST", "PORT", "WEB_CONCURRENCY", "DJANGO_", "UPSTREAM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hubs)}
    return kept | {"DJANGO_SETTINGS_MODULE": "llmhub.settings"} | own
