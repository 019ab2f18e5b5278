"""Where the hub's CPU time goes: by thread, by module, by function. The hub runs under `sampler.py`."""

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.load import attempt, report_of, start_load
from tests.benchmarks.processes import ROOT, NotMeasured, cpu_seconds, stop
from tests.benchmarks.subjects import Bench, Target
from tests.benchmarks.work import Posts, Sockets, Streams

if TYPE_CHECKING:
    from tests.benchmarks.rows import Row

PROJECT = ("completions", "providers", "llmhub")
WRITE_SECONDS = 10.0
MOST_LINES = 30
MODES: dict[type, tuple[str, str]] = {
    Posts: ("post", "requests"),
    Streams: ("stream", "chunks"),
    Sockets: ("ws", "chunks"),
}
FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")


@dataclass(frozen=True)
class Stack:
    """Frames of one thread, outermost first, and the CPU spent under them."""

    thread: str
    frames: tuple[str, ...]
    microseconds: float

    @property
    def places(self) -> list[tuple[str, str]]:
        """Module and function of each frame, innermost first."""
        return [place(frame) for frame in reversed(self.frames)] or [("", "waiting")]

    @property
    def step(self) -> tuple[str, str]:
        """The innermost of the project's own; where there is none, a library's."""
        ours = (
            found for found in self.places if found[0].startswith(PROJECT) and ".management." not in found[0]
        )
        return next(ours, (f"({package(self.places[0][0])})", self.places[0][1]))


def report(bench: Bench, rows: "list[Row]") -> None:
    """Print the profile of each row."""
    for row in rows:
        try:
            stacks, unit, cpu, done = profile(bench, row)
        except NotMeasured as problem:
            print(f"{row.name} n/a: {problem}")
            continue
        each = f"{done} {unit}, {cpu / done * 1e6:.0f} µs of CPU each"
        print(f"{row.name}: {row.about}. {each}, what the profiler takes included")
        for line in shares(stacks, cpu * 1e6, done):
            print(line)


def profile(bench: Bench, row: "Row") -> tuple[list[Stack], str, float, int]:
    """The row's load on the hub: the stacks that ran meanwhile, its unit, CPU seconds and count."""
    if type(row.work) not in MODES:
        raise NotMeasured("only rows that load the hub evenly have a profile")
    mode, unit = MODES[type(row.work)]
    connections, warmup = getattr(row.work, "connections", 1), getattr(row.work, "warmup", 1.0)
    file = bench.folder / "profile.txt"
    file.unlink(missing_ok=True)
    with bench.hub_for(row.request, ("-m", "tests.benchmarks.sampler", str(file))) as target:
        attempt(target, mode)
        longer = replace(target, seconds=target.seconds + 3)  # loads on while the profiler begins and ends
        client = start_load(longer, mode, connections, warmup)
        try:
            time.sleep(warmup + 0.5)
            before = cpu_seconds(target.server.pid)
            with sampled(target, file):
                time.sleep(target.seconds)
            cpu = cpu_seconds(target.server.pid) - before
            found = report_of(client, target)
        finally:
            stop(client)
    if not found[unit]:
        raise NotMeasured(f"{target.path}: {found['first_error']}")
    done = round(found[unit] * target.seconds / found["seconds"])
    return read(file), unit, cpu, max(done, 1)


@contextmanager
def sampled(target: Target, file: Path) -> Iterator[None]:
    """While this lasts the hub is looked at; `file` is whole when it ends."""
    os.kill(target.server.pid, signal.SIGUSR1)
    yield
    os.kill(target.server.pid, signal.SIGUSR1)
    deadline = time.monotonic() + WRITE_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise NotMeasured("the sampler wrote nothing")
        time.sleep(0.02)


def read(file: Path) -> list[Stack]:
    found = []
    for line in file.read_text().splitlines():
        text, _, microseconds = line.rpartition(" ")
        thread, *frames = text.split(";")
        found.append(Stack(thread, tuple(frames), int(microseconds)))
    return found


def place(frame: str) -> tuple[str, str]:
    """Module and function of a frame such as `settle (/…/completions/ledger/writer.py:10)`."""
    match = FRAME.match(frame)
    if match is None:
        return frame, ""
    path = Path(match["file"])
    if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
        path = path.relative_to(ROOT)
    else:
        parts = path.parts
        anchor = max((parts.index(name) for name in ("site-packages", LIBRARY) if name in parts), default=-1)
        path = Path(*parts[anchor + 1 :])
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__"), match["function"]


LIBRARY = f"python{sys.version_info.major}.{sys.version_info.minor}"


def shares(stacks: list[Stack], cpu: float, done: int) -> Iterator[str]:
    """The lines of a profile: µs for each thing done, and its share of the process's CPU."""
    groups: dict[str, Counter[str]] = {
        "thread": Counter(),
        "module of the project, all it calls in libraries included": Counter(),
        "function of the project": Counter(),
        "package of the innermost frame": Counter(),
    }
    for stack in stacks:
        module, function = stack.step
        names = (stack.thread, module, f"{module}.{function}", package(stack.places[0][0]))
        for counter, name in zip(groups.values(), names, strict=True):
            counter[name] += round(stack.microseconds)
    threads = groups["thread"]
    threads["not seen"] = max(0, round(cpu - threads.total()))
    for title, counter in groups.items():
        yield f"\n{'µs each':>10}{'share':>8}  by {title}"
        for name, spent in counter.most_common(MOST_LINES):
            if spent > cpu / 500:
                yield f"{spent / done:>10.1f}{spent / cpu:>8.1%}  {name}"


def package(module: str) -> str:
    """The outermost name of a module's."""
    return module.split(".")[0]
