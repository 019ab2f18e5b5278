"""What is wrong with a configuration, where it stands, and never with a secret in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
REDACT_FROM_CHARACTERS = 4  # shorter values would blank out ordinary words


def path_text(path: Path) -> str:
    """('providers', 0, 'slug') as providers[0].slug."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: file (empty: made in Python), line from 1 (0: unknown) and path."""

    source: str
    line: int
    path: Path

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.source and self.line else self.source
        return ": ".join(part for part in (where, path_text(self.path)) if part)

    def below(self, key: str) -> "Place":
        """The place of something that ought to stand here and does not."""
        return Place(self.source, self.line, (*self.path, key))


@dataclass(frozen=True, slots=True)
class Problem:
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Problems:
    """Collects every problem of a run. `secrets` maps secret values to what is shown in their place."""

    found: list[Problem] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    def keep_secret(self, values: Mapping[str, str]) -> None:
        self.secrets |= {
            value: shown for value, shown in values.items() if len(value) >= REDACT_FROM_CHARACTERS
        }

    def redacted(self, text: str) -> str:
        for value, shown in sorted(self.secrets.items(), key=lambda item: -len(item[0])):
            text = text.replace(value, shown)
        return text

    def add(self, place: Place, message: str) -> None:
        problem = Problem(place, self.redacted(message))
        if problem not in self.found:
            self.found.append(problem)

    def raise_if_any(self) -> None:
        if self.found:
            raise ConfigRefused(
                sorted(self.found, key=lambda problem: (problem.place.source, problem.place.line))
            )


class ConfigRefused(Exception):
    """The configuration is not valid and nothing was changed. `problems` has all, in the file's order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
