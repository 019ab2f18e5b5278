"""Check that the ledger's sums are what its rows say."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from completions.ledger.audit import audit


class Command(BaseCommand):
    help = "Recompute every budget's spent and held from the rows. Exit 0: true. Exit 1: names the rows."

    def handle(self, *args: Any, **options: Any) -> None:
        problems = audit()
        for problem in problems:
            self.stdout.write(problem)
        if problems:
            raise CommandError(f"{len(problems)} contradictions in the ledger")
        self.stdout.write("The ledger is true.")
