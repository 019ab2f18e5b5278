"""The rules of the house, read off the tree itself."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("llmhub", "providers", "completions")
LINES = 400
TOP_LEVEL = {
    ".ci", ".dockerignore", ".editorconfig", ".gitattributes", ".github", ".gitignore", "CHANGELOG.md",
    "LICENSE", "Makefile", "README.md", "completions", "docs", "llmhub", "manage.py", "providers",
    "pyproject.toml", "templates", "tests", "uv.lock",
}  # fmt: skip
NOT_OURS = ("__pycache__", "node_modules")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "services"}
BARE = (  # modules that must not load a framework
    "providers.types", "providers.errors", "providers.pricing", "providers.presets", "providers.drivers",
    "providers.drivers.openai", "providers.drivers.demo", "providers.drivers.sse",
    "completions.types", "completions.errors", "completions.tokens",
)  # fmt: skip
HEAVY = ("tiktoken", "openai", "genai_prices", "playwright", "pytest", "numpy")


def tracked() -> list[Path]:
    """Every file of the project: what git tracks or would, if asked to add all; in an archive, every file."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    names = listing.stdout.decode().split("\0") if listing.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or [path for path in ROOT.rglob("*") if _ours(path)]
    return [path for path in paths if path.is_file()]


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    caches = {part for part in parts if part.startswith(".") or part in NOT_OURS} - TOP_LEVEL
    return path.is_file() and not caches and not parts[0].startswith("test-results")


def sources(*suffixes: str) -> list[Path]:
    return [path for path in tracked() if path.suffix in suffixes]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_top_of_the_tree_holds_only_what_belongs_there() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert found <= TOP_LEVEL


def test_no_source_file_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources(".py", ".html", ".js", ".css", ".md", ".sh")
        if "migrations" not in path.parts and (count := len(path.read_text().splitlines())) > LINES
    }
    assert long == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    found = {
        str(path.relative_to(ROOT)) for path in sources(".py") if {path.stem, *path.parts} & FORBIDDEN_NAMES
    }
    assert found == set()


def test_the_readme_maps_every_module() -> None:
    """The map in README.md names each module and folder of the apps, and nothing that is not there."""
    assert mapped() == in_tree()


def mapped() -> set[str]:
    """Paths in the README's map: a line ending in / opens a folder, indented names are in it."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- map -->\n+```\n(.*?)```", text, re.DOTALL)
    assert block is not None, "README.md has no map (a fenced block after <!-- map -->)"
    return set(_paths(block[1].splitlines()))


def _paths(lines: list[str]) -> Iterator[str]:
    folder = ""
    for line in lines:
        names = re.split(r"\s{2,}", line.strip(), maxsplit=1)[0].split()
        if not line.startswith(" "):
            folder = names[0]
            yield folder
            continue
        yield from (f"{folder}{name}" for name in names)


def in_tree() -> set[str]:
    """The apps, their modules (without .py) and folders (with a slash), and the top-level folders."""
    found = {f"{name}/" for name in TOP_LEVEL if (ROOT / name).is_dir() and not name.startswith(".")}
    for path in tracked():
        parts = path.relative_to(ROOT).parts
        if parts[0] not in APPS or len(parts) < 2:
            continue
        if len(parts) > 2:
            found.add(f"{parts[0]}/{parts[1]}/")
        elif parts[1] != "__init__.py":
            found.add(f"{parts[0]}/{Path(parts[1]).stem}")
    return found


def test_imports_point_down() -> None:
    run = python(
        "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("module", BARE)
def test_a_bare_module_loads_without_a_framework(module: str) -> None:
    frameworks = "{'django', 'rest_framework', 'channels'}"
    run = python("-c", f"import sys, {module}; print(*sorted({frameworks} & set(sys.modules)))")
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_starting_the_hub_loads_nothing_heavy() -> None:
    run = python(
        "-c",
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'; import llmhub.asgi; "
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))",
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_every_model_change_has_its_migration() -> None:
    run = python("manage.py", "makemigrations", "--check", "--dry-run", "--settings=tests.settings")
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_file_names_the_machine_it_was_written_on() -> None:
    forbidden = re.compile("|".join(("/" + "root/", "/" + "work/", "/" + "home/[a-z]+/")))
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path.suffix not in (".png", ".ico", ".woff2") and "tiktoken" not in path.parts
        and (match := forbidden.search(path.read_text(errors="replace")))
    }  # fmt: skip
    assert found == set()
