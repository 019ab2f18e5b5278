"""`manage.py prune`: retention at once, instead of within the hour (docs/operations.md)."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from completions import prune


class Command(BaseCommand):
    help = (
        "Delete prompts, answers and cached answers past their date, cached ones beyond "
        "LLMHUB_CACHE_STORED_BYTES, and calls older than LLMHUB_LEDGER_DAYS (0, the default, keeps them). "
        "The worker does it every hour."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Count, and delete nothing.")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        if dry_run:
            self.stdout.write(f"Would delete {described(prune.due())}.")
            return
        total = prune.Pruned()
        for step in prune.prune():
            total += step
        self.stdout.write(f"Deleted {described(total)}.")


def described(rows: prune.Pruned) -> str:
    return (
        f"{rows.contents} contents, {rows.calls} calls, {rows.windows} ended budget periods and "
        f"{rows.answers} cached answers"
    )
