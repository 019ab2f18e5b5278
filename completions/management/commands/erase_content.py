"""`manage.py erase_content`: take prompts and answers out of the database; the ledger's rows stay."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from completions.cache import erasing
from completions.cache.erasing import Erased
from completions.content import Scope
from completions.errors import UnavailableError
from completions.management.moments import moment
from completions.models import ApiKey, Project
from completions.wording import counted


class Command(BaseCommand):
    help = "Erase prompts and answers, cached ones too. Tokens and money stay. All filters given must fit."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", metavar="SLUG", help="Only calls of this project.")
        parser.add_argument(
            "--key",
            metavar="KEY",
            help="Only calls of this key: its number, or the 12 characters after sk-llmhub-.",
        )
        parser.add_argument("--user", metavar="USER", help="Only calls for this end user (the field `user`).")
        parser.add_argument(
            "--request",
            action="append",
            metavar="ID",
            help="Only this call, by its id or request id. Repeatable.",
        )
        parser.add_argument("--before", metavar="TIME", help="Only calls made before this day or time.")
        parser.add_argument("--all", action="store_true", help="No filter: the content of every call.")
        parser.add_argument("--dry-run", action="store_true", help="Say how many, and erase nothing.")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        scopes = _scopes(options)
        if options["all"] == any(scopes):
            raise CommandError(
                "Say whose content: --project, --key, --user, --request or --before; or --all alone."
            )
        if dry_run:
            would = sum((erasing.found(scope) for scope in scopes), start=Erased(0, 0))
            self.stdout.write(f"Dry run: {_erased(would)} would be erased.")
            return
        try:
            done = sum((erasing.erase(scope) for scope in scopes), start=Erased(0, 0))
        except UnavailableError as error:
            raise CommandError(f"Nothing more was erased, so run it again: {error}") from None
        self.stdout.write(f"Erased {_erased(done)}. Their rows in the ledger stay.")


def _erased(count: Erased) -> str:
    return f"the content of {counted(count.contents, 'call')} and {counted(count.answers, 'cached answer')}"


def _scopes(options: dict[str, Any]) -> list[Scope]:
    """One for each request that was named, or one for all."""
    found = {
        "project": _project(options["project"]) if options["project"] is not None else None,
        "api_key": _key(options["key"]) if options["key"] is not None else None,
        "end_user": options["user"],
        "before": moment(options["before"], "--before") if options["before"] else None,
    }
    if options["user"] == "":
        raise CommandError("--user is empty: that would mean every call without an end user. Name one.")
    return [_of_request(found, one) for one in options["request"] or ()] or [Scope(**found)]


def _of_request(found: dict[str, Any], one: str) -> Scope:
    try:
        by_id = Scope(**found, completions=(uuid.UUID(one),))
    except ValueError:
        return Scope(**found, request_id=one)
    return by_id if by_id.calls().exists() else Scope(**found, request_id=one)


def _project(slug: str) -> str:
    if not Project.objects.filter(slug=slug).exists():
        raise CommandError(f"--project: there is no project {slug!r}.")
    return slug


def _key(name: str) -> int:
    by_name = (
        ApiKey.objects.filter(pk=int(name)) if name.isdecimal() else ApiKey.objects.filter(public_id=name)
    )
    row = by_name.first()
    if row is None:
        raise CommandError(
            f"--key: there is no key {name!r}. Give its number in the admin, or its public id."
        )
    return row.pk
