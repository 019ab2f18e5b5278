"""`manage.py cache_purge`: forget cached answers, on every process (docs/caching.md)."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from completions.cache.purge import Selection, purge
from completions.errors import UnavailableError
from completions.models import Project
from completions.wording import counted


class Command(BaseCommand):
    help = "Forget cached answers, pinned ones too, on every process. All filters given must fit."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", metavar="SLUG", help="Only answers to calls of this project.")
        parser.add_argument("--model", metavar="NAME", help="Only of this model, as callers name it.")
        parser.add_argument("--provider", metavar="SLUG", help="Only of this provider.")
        parser.add_argument("--user", metavar="NAME", help="Only of this end user (the field `user`).")
        parser.add_argument("--all", action="store_true", help="No filter: every cached answer.")
        parser.add_argument("--dry-run", action="store_true", help="Say how many, and forget nothing.")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        selection = _selection(options)
        if options["all"] == (selection != Selection()):
            raise CommandError("Say which answers: --project, --model, --provider or --user; or --all alone.")
        if dry_run:
            count = selection.queryset().count()
            self.stdout.write(f"Dry run: {counted(count, 'cached answer')} would be forgotten.")
            return
        try:
            count = purge(selection)
        except UnavailableError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Forgot {counted(count, 'cached answer')}.")


def _selection(options: dict[str, Any]) -> Selection:
    if options["user"] == "":
        raise CommandError("--user is empty: that would mean every answer without an end user. Name one.")
    slug, project_id = options["project"], None
    if slug is not None:
        project_id = Project.objects.filter(slug=slug).values_list("pk", flat=True).first()
        if project_id is None:
            raise CommandError(f"--project: there is no project {slug!r}.")
    return Selection(
        project_id=project_id,
        model=options["model"],
        provider=options["provider"],
        end_user=options["user"],
    )
