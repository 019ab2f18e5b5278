"""`manage.py apply FILE…`: configuration as code (docs/configuration.md)."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError

from completions.config import ConfigRefused, Difference, Document, apply_config, load
from completions.errors import LLMServiceError


class Command(BaseCommand):
    help = "Bring providers, models, prices, projects and keys to what YAML files say."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="A YAML file; '-' reads standard input.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Show what would change, and change nothing."
        )
        parser.add_argument(
            "--prune",
            action="store_true",
            help="Remove what the files no longer name, within the sections they have. Used keys are revoked "
            "and projects with calls in the ledger disabled, so that the ledger stays whole.",
        )

    def handle(self, *, files: list[str], dry_run: bool, prune: bool, **options: Any) -> None:
        try:
            difference = apply_config([self.document(name) for name in files], dry_run=dry_run, prune=prune)
        except ConfigRefused as refused:
            count = len(refused.problems)
            raise CommandError(
                f"{refused}\n{count} problem{'s' * (count > 1)}; nothing was changed."
            ) from refused
        except LLMServiceError as error:
            raise CommandError(f"{error} Nothing was changed.") from error
        except IntegrityError as error:
            raise CommandError(
                f"Someone else changed the same rows meanwhile; apply again. ({error})"
            ) from error
        self.report(difference, dry_run)

    def document(self, name: str) -> Document:
        try:
            if name == "-":
                return load(sys.stdin.read(), "standard input", Path.cwd())
            return load(Path(name).read_text(encoding="utf-8"), name, Path(name).parent)
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CommandError(f"{name} is not UTF-8 text (byte {error.start})") from error

    def report(self, difference: Difference, dry_run: bool) -> None:
        self.stdout.write(difference.render())
        if dry_run and difference:
            self.stdout.write("Dry run: nothing was changed.")
        for key in difference.issued:
            self.stdout.write(
                f"Key '{key.name}' of project '{key.project}', shown only now: {key.secret.reveal()}"
            )
