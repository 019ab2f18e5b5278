"""The load of client.c on one target, and what the server spent meanwhile."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import (
    LOAD_CORE,
    SERVER_CORE,
    NotMeasured,
    core_seconds,
    cpu_seconds,
    environment_of,
    last_words,
    resident_bytes,
    start,
    stop,
)
from tests.benchmarks.subjects import Target

MOST_ERRORS = 0.001  # of all that was done; with more of them a figure says nothing
TRY_SECONDS = 0.3


@dataclass(frozen=True)
class Load:
    """What one run of the load found: the client's own report, and the server's CPU and memory."""

    found: dict[str, Any]
    cpu_seconds: float
    idle_bytes: int  # before it began
    open_bytes: int  # with all connections still open
    others_seconds: float  # of its core, used by others

    @property
    def seconds(self) -> float:
        return float(self.found["seconds"])

    def cpu_microseconds(self, unit: str) -> float:
        return self.cpu_seconds / self.found[unit] * 1e6


def load(
    target: Target, mode: str, connections: int = 1, warmup: float = 1.0, *, unit: str = "", path: str = ""
) -> Load:
    """Load the target for its seconds. NotMeasured where no `unit` was done, or too many failed."""
    idle = resident_bytes(target.server.pid)
    client = start_load(target, mode, connections, warmup, path=path)
    try:
        _read(client, target)
        before, core_before = cpu_seconds(target.server.pid), core_seconds(SERVER_CORE)
        found = _read(client, target)
        spent, core = cpu_seconds(target.server.pid) - before, core_seconds(SERVER_CORE) - core_before
        opened = resident_bytes(target.server.pid)
    finally:
        stop(client)
    check(found, unit)
    return Load(found, spent, idle, opened, core - spent)


def start_load(
    target: Target,
    mode: str,
    connections: int,
    warmup: float,
    *,
    seconds: float | None = None,
    path: str = "",
) -> "subprocess.Popen[str]":
    """The client in the background; `report_of` waits for its end."""
    command = [
        str(target.client),
        mode,
        "127.0.0.1",
        str(target.server.port),
        path or target.path,
        target.key,
    ]
    command += ["--connections", str(connections), "--warmup", str(warmup)]
    command += ["--seconds", str(target.seconds if seconds is None else seconds)]
    if mode in ("post", "stream", "ws"):
        command += ["--body-file", str(target.body), *(["--unique"] if target.request.unique else [])]
    if mode in ("post", "stream"):
        command += ["--expect", target.expect]
    return start(command, LOAD_CORE, environment_of(), _log(target), talks=True)


def attempt(target: Target, mode: str, path: str = "") -> None:
    """A few requests on one connection. Raises NotMeasured where one fails; leaves a server that is awake."""
    client = start_load(target, mode, 1, 0.2, seconds=TRY_SECONDS, path=path)
    found = report_of(client, target)
    if found["errors"]:
        raise NotMeasured(f"{path or target.path}: {found['first_error']}")


def report_of(client: "subprocess.Popen[str]", target: Target) -> dict[str, Any]:
    try:
        _read(client, target)
        return _read(client, target)
    finally:
        stop(client)


def check(found: dict[str, Any], unit: str) -> None:
    done = found[unit] if unit else 0
    if (unit and not done) or found["errors"] > done * MOST_ERRORS:
        first = found["first_error"] or "no answer in time"
        raise NotMeasured(f"{found['errors']} failed, {done} {unit} did not: {first}")


def _read(client: "subprocess.Popen[str]", target: Target) -> dict[str, Any]:
    """The client's next line. It ends by itself, so this does not wait for ever."""
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise NotMeasured(f"the load failed: {last_words(_log(target))}")
    report: dict[str, Any] = json.loads(line)
    return report


def _log(target: Target) -> Path:
    return target.body.with_name("client.log")
