"""`manage.py cache_purge`: which answers it forgets, and what it refuses to guess."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from completions.cache import index
from tests.completions.kept import found, kept, rows, store
from tests.factories import make_project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _answers() -> None:
    web, app = make_project("web"), make_project("app")
    store(
        kept(web, "a"),
        kept(web, "b", public_model="small"),
        kept(web, "c", provider="other"),
        kept(app, "d"),
    )
    index.flush()


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("cache_purge", *arguments, stdout=out)
    return out.getvalue().strip()


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--project", "web"], {"d"}),
        (["--model", "small"], {"a", "c", "d"}),
        (["--provider", "other"], {"a", "b", "d"}),
        (["--user", "ada"], set()),
        (["--project", "web", "--model", "smart"], {"b", "d"}),
        (["--all"], set()),
    ],
)
def test_what_all_filters_fit_is_forgotten(arguments: list[str], left: set[str]) -> None:
    count = 4 - len(left)

    assert command(*arguments) == f"Forgot {count} cached answer{'' if count == 1 else 's'}."
    assert rows().keys() == left
    assert {key for key in "abcd" if found(key)} == left


def test_a_dry_run_only_counts() -> None:
    assert command("--project", "web", "--dry-run") == "Dry run: 3 cached answers would be forgotten."
    assert len(rows()) == 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Say which answers"),
        (["--all", "--project", "web"], "Say which answers"),
        (["--project", "none"], "there is no project 'none'"),
        (["--user", ""], "--user is empty"),
    ],
)
def test_what_is_not_said_clearly_is_refused(arguments: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        command(*arguments)
    assert len(rows()) == 4
