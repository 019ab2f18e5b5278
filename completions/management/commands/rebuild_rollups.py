"""`manage.py rebuild_rollups`: make the hourly sums anew from the ledger (docs/operations.md)."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from completions import jobs, rollups
from completions.management.moments import moment

WAIT_SECONDS = 120.0  # for a run that another process is at


class Command(BaseCommand):
    help = "Make the hourly sums of usage anew from the ledger. Safe while the hub runs; may be run again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", metavar="TIME", help="Only hours from this day or time on.")

    def handle(self, *, since: str | None, **options: Any) -> None:
        begin = moment(since, "--since") if since else None
        deadline = time.monotonic() + WAIT_SECONDS
        while not rollups.restart(begin):
            if time.monotonic() > deadline:
                raise CommandError("The worker has been summing all the time. Try again in a few minutes.")
            time.sleep(1)
        started = timezone.now()
        # Where a worker takes the job first, it does the work: either way it is done when the sums are whole.
        while not rollups.is_whole(started):
            if not jobs.run_due(["rollup"]):
                time.sleep(1)
            if problem := jobs.last_error("rollup"):
                raise CommandError(f"Summing failed, and the worker will try again: {problem}")
            self.stdout.write(f"Summed until {rollups.summed_until():%Y-%m-%d %H:%M} UTC.")
            self.stdout.flush()
