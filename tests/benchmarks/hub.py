"""The hub under test: embedded, in one process, on a new database with everything switched on."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.processes import (
    ROOT,
    SERVER_CORE,
    NotMeasured,
    Server,
    environment_of,
    free_port,
    last_words,
    serving,
)
from tests.outside import TEST_REDIS_URL, redis_problem

KEY = f"sk-llmhub-benchmark000-{'b' * 43}"
# A hard budget, limits and the log of contents: what a careful owner has.
CONFIGURATION = """
providers:
{providers}
projects:
  - slug: bench
    name: Benchmark
    content_days: 30
    keys:
      - name: bench
        secret: "{key}"
        log_content: true
        limits: {{requests_per_minute: 100000000, tokens_per_minute: 100000000000, concurrent: 100000}}
        budgets: [{{amount: 1000000, period: month, hard: true}}]
"""
PROVIDER = """
  - slug: {name}
    type: openai_compatible
    base_url: http://127.0.0.1:{port}/v1
    models: [{{name: {name}, prices: {{prompt: 1, completion: 2}}}}]
    default_model: {name}
"""
MANAGE = [sys.executable, "manage.py"]
SET_UP_SECONDS = 120.0


class Hub:
    """Sets up a data directory once; every start gets a copy of its own."""

    def __init__(self, folder: Path, upstreams: Mapping[str, int]) -> None:
        self.folder = folder
        self.upstreams = upstreams
        self.problem = ""
        self.template = folder / "template"
        self.log = folder / "hub.log"

    def set_up(self) -> None:
        """Tables, providers and a key. What fails is told by every start."""
        self.template.mkdir()
        providers = "".join(PROVIDER.format(name=name, port=port) for name, port in self.upstreams.items())
        file = self.folder / "bench.yaml"
        file.write_text(CONFIGURATION.format(providers=providers.strip("\n"), key=KEY))
        for arguments in (["migrate", "--verbosity", "0"], ["apply", str(file)]):
            if not self.problem:
                self._manage(arguments)

    def _manage(self, arguments: list[str]) -> None:
        with self.log.open("w") as log:
            done = subprocess.run(
                [*MANAGE, *arguments],
                cwd=ROOT,
                env=self.environment(self.template, 1),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=SET_UP_SECONDS,
                check=False,
            )
        if done.returncode:
            self.problem = f"manage.py {arguments[0]} failed: {last_words(self.log)}"

    @contextmanager
    def running(self, launcher: tuple[str, ...] = (), *, redis: bool = False) -> Iterator[Server]:
        """A hub with an empty ledger. `launcher` are arguments of Python that run manage.py their way."""
        if redis and (problem := redis_problem()):
            raise NotMeasured(problem)
        if self.problem:
            raise NotMeasured(self.problem)
        data, port = self.folder / "data", free_port()
        shutil.copytree(self.template, data)
        command = [sys.executable, *launcher, "manage.py", "serve"]
        environment = self.environment(data, port) | ({"REDIS_URL": TEST_REDIS_URL} if redis else {})
        try:
            with serving(command, port, SERVER_CORE, environment, self.log) as server:
                yield server
        finally:
            shutil.rmtree(data, ignore_errors=True)

    @staticmethod
    def environment(data: Path, port: int) -> dict[str, str]:
        return environment_of(
            LLMHUB_DATA_DIR=str(data),
            LLMHUB_LOG_LEVEL="ERROR",
            LLMHUB_DRAIN_SECONDS="1",
            HOST="127.0.0.1",
            PORT=str(port),
        )
