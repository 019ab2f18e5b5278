"""`manage.py export_config`: the configuration as a file for `manage.py apply`, without secrets."""

from typing import Any

from django.core.management.base import BaseCommand

from completions.config import export_text


class Command(BaseCommand):
    help = "Print the configuration in the format of `apply`. Secrets become ${NAME} placeholders."

    def handle(self, **options: Any) -> None:
        self.stdout.write(export_text(), ending="")
