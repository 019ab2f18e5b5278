"""What one call costs the hub's process in CPU, as a multiple of what a bare relay costs. Under a minute.

`make bench`, or `python -m tests.benchmarks.run --seconds 10 --concurrency 8`.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
KEY = f"sk-llmhub-benchmark000-{'b' * 43}"
BODY = {
    "model": "bench",
    "messages": [{"role": "user", "content": "Say something short about the sea."}],
    "config": {"max_tokens": 100},
}
WARM_UP_SECONDS = 2.0
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
CONFIGURATION = """
providers:
  - slug: bench
    type: openai_compatible
    base_url: http://127.0.0.1:{port}/v1
    models: [{{name: bench, prices: {{prompt: 1, completion: 2}}}}]
    default_model: bench
projects:
  - slug: bench
    name: Benchmark
    keys:
      - name: bench
        secret: "{key}"
        limits: {{requests_per_minute: 100000000, tokens_per_minute: 1000000000, concurrent: 10000}}
        budgets: [{{amount: 1000000, period: month, hard: true}}]
"""


@dataclass(frozen=True)
class Figure:
    """One subject under load."""

    name: str
    requests: int
    seconds: float
    cpu_seconds: float

    @property
    def cpu_microseconds(self) -> float:
        return self.cpu_seconds / self.requests * 1e6


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(port: int, *command: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of ours, from when its port answers."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{' '.join(command)} did not start")
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_SECONDS


async def load(url: str, seconds: float, concurrency: int) -> int:
    """Post BODY over and over; how many were answered. Exits where one is not."""
    deadline, answered = time.monotonic() + seconds, 0
    headers = {"authorization": f"Bearer {KEY}"}

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal answered
        while time.monotonic() < deadline:
            async with session.post(url, json=BODY, headers=headers) as answer:
                text = await answer.text()
                if answer.status != 200 or "A short answer" not in text:
                    sys.exit(f"{url} answered {answer.status}: {text[:300]}")
            answered += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(caller(session) for _ in range(concurrency)))
    return answered


def measure(name: str, pid: int, url: str, options: argparse.Namespace) -> Figure:
    asyncio.run(load(url, WARM_UP_SECONDS, options.concurrency))
    cpu, began = cpu_seconds(pid), time.monotonic()
    answered = asyncio.run(load(url, options.seconds, options.concurrency))
    return Figure(name, answered, time.monotonic() - began, cpu_seconds(pid) - cpu)


def set_up_hub(data: Path, upstream: int) -> dict[str, str]:
    """The hub's environment, its database made and its provider applied."""
    environment = {"LLMHUB_DATA_DIR": str(data), "PORT": str(free_port()), "LLMHUB_LOG_LEVEL": "ERROR"}
    environment |= {"DJANGO_SETTINGS_MODULE": "llmhub.settings", "DATABASE_URL": "", "REDIS_URL": ""}
    configuration = data / "bench.yaml"
    configuration.write_text(CONFIGURATION.format(port=upstream, key=KEY))
    for command in (["migrate", "--verbosity", "0"], ["apply", str(configuration)]):
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=os.environ | environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return environment


def figures(options: argparse.Namespace) -> list[Figure]:
    with ExitStack() as stack:
        upstream, relay = free_port(), free_port()
        stack.enter_context(running(upstream, "-m", "tests.benchmarks.upstream", str(upstream)))
        bare = stack.enter_context(
            running(
                relay,
                *("-m", "uvicorn", "tests.benchmarks.relay:relay", "--port", str(relay), "--no-access-log"),
                *("--log-level", "warning"),
                UPSTREAM=f"http://127.0.0.1:{upstream}/v1/chat/completions",
            )
        )
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmhub-bench-")))
        environment = set_up_hub(data, upstream)
        hub = stack.enter_context(running(int(environment["PORT"]), "manage.py", "serve", **environment))
        bare_hub = free_port()
        pipeline = stack.enter_context(
            running(
                bare_hub,
                *("-m", "uvicorn", "tests.benchmarks.bare_pipeline:serve", "--port", str(bare_hub)),
                *("--no-access-log", "--log-level", "warning"),
                **environment,
            )
        )
        hub_url = f"http://127.0.0.1:{environment['PORT']}/api/completions/"
        return [
            measure("bare relay", bare.pid, f"http://127.0.0.1:{relay}/", options),
            measure("the pipeline", pipeline.pid, f"http://127.0.0.1:{bare_hub}/", options),
            measure("POST /api/completions/", hub.pid, hub_url, options),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each subject is measured")
    parser.add_argument("--concurrency", type=int, default=8, help="callers at a time")
    found = figures(parser.parse_args())
    print(f"{'subject':<24}{'requests':>10}{'requests/s':>12}{'CPU µs/request':>16}{'ratio':>8}")
    for figure in found:
        ratio = figure.cpu_microseconds / found[0].cpu_microseconds
        rate = figure.requests / figure.seconds
        print(
            f"{figure.name:<24}{figure.requests:>10}{rate:>12.0f}{figure.cpu_microseconds:>16.0f}{ratio:>8.1f}"
        )


if __name__ == "__main__":
    main()
