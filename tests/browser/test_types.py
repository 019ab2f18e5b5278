"""The types that the scripts' comments promise hold, and the client needs nothing but itself."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.outside import NODE_CLIENTS

FLAGS = [
    "--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2023", "--module", "es2022",
    "--moduleResolution", "bundler", "--lib", "es2024,dom,dom.iterable",
]  # fmt: skip


@pytest.mark.node
def test_types_hold(repository: Path) -> None:
    static = repository / "completions" / "static" / "completions"
    compiler = NODE_CLIENTS / "node_modules" / ".bin" / "tsc"
    files = [static / name for name in ("llmhub-client.js", "playground/main.js", "running.js")]
    done = subprocess.run([compiler, *FLAGS, *files], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_client_imports_nothing_but_its_own_part(repository: Path) -> None:
    static = repository / "completions" / "static" / "completions"
    sources = [static / name for name in ("llmhub-client.js", "llmhub-answer.js")]
    imported = [
        re.findall(r'^import .* from "(.+)";$', source.read_text(), re.MULTILINE) for source in sources
    ]
    assert imported == [["./llmhub-answer.js"], []]
