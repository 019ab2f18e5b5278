"""`manage.py worker`: the hub's periodic work in a process of its own (docs/operations.md)."""

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from completions import jobs, worker


class Command(BaseCommand):
    help = (
        "Run the hub's periodic jobs (sums of usage, alerts, retention) until SIGTERM or Ctrl-C. Run one or "
        "more on a hub with servers; an embedded hub works by itself."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Run what is due now, then end.")

    def handle(self, *, once: bool, **options: Any) -> None:
        if once:
            ran = jobs.run_due()
            self.stdout.write(f"Ran: {', '.join(ran)}." if ran else "Nothing was due.")
            return
        # In a thread: the handler interrupts this one, which may hold the event's own lock just now.
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: threading.Thread(target=jobs.stopping.set).start())
        self.stdout.write("The worker runs. Ctrl-C ends it.")
        self.stdout.flush()
        worker.run_until_stopped()
