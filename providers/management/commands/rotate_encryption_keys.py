"""`manage.py rotate_encryption_keys`: every secret sealed with the newest key (docs/configuration.md)."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import models
from tqdm import tqdm

from providers.errors import DecryptionError
from providers.fields import EncryptedTextField, decrypt, encrypt, sealed_with_newest

BATCH_ROWS = 200


def encrypted_fields() -> list[EncryptedTextField]:
    """Every encrypted field of every installed model: one added later is rotated without a word here."""
    return [
        field
        for model in apps.get_models()
        for field in model._meta.local_concrete_fields
        if isinstance(field, EncryptedTextField)
    ]


class Command(BaseCommand):
    help = (
        "Seal every stored secret anew with the newest key of LLMHUB_ENCRYPTION_KEYS. It may be stopped and "
        "run again at any time: rows that are sealed with the newest key are skipped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="Count what there is to do, and change nothing."
        )

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        fields = encrypted_fields()
        total = sum(_with_value(field).count() for field in fields)
        counts = {"sealed anew": 0, "already newest": 0, "changed meanwhile": 0}
        unreadable: list[str] = []
        with tqdm(total=total, unit="secret", file=sys.stderr, disable=not sys.stderr.isatty()) as progress:
            for field in fields:
                for row in _in_batches(field):
                    outcome = rotate(field, row, dry_run=dry_run)
                    if outcome in counts:
                        counts[outcome] += 1
                    else:
                        unreadable.append(f"{row._meta.label} {row.pk}: {field.name}: {outcome}")
                    progress.update()
        self.report(counts, unreadable, dry_run)

    def report(self, counts: dict[str, int], unreadable: list[str], dry_run: bool) -> None:
        if dry_run:
            counts = {
                "to seal anew" if outcome == "sealed anew" else outcome: n for outcome, n in counts.items()
            }
        self.stdout.write(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + ".")
        if unreadable:
            lines = "\n".join(unreadable)
            raise CommandError(f"{len(unreadable)} cannot be decrypted and were left as they are:\n{lines}")
        if not dry_run and not counts["changed meanwhile"]:
            self.stdout.write("Every secret is sealed with the newest key: older ones may be taken away.")


def rotate(field: EncryptedTextField, row: models.Model, *, dry_run: bool) -> str:
    """Seal one row's secret anew, unless someone else writes it meanwhile; what came of it."""
    token = field.stored(row)
    binding = field.binding(row)
    try:
        plaintext = decrypt(token, binding)
    except DecryptionError as error:
        return str(error)
    if sealed_with_newest(token):
        return "already newest"
    if dry_run:
        return "sealed anew"
    unchanged = type(row)._base_manager.filter(pk=row.pk, **{field.attname: row.__dict__[field.attname]})
    return (
        "sealed anew"
        if unchanged.update(**{field.attname: encrypt(plaintext, binding)})
        else "changed meanwhile"
    )


def _with_value(field: EncryptedTextField) -> "models.QuerySet[Any]":
    rows = field.model._base_manager.exclude(**{field.attname: ""})
    return rows.exclude(**{f"{field.attname}__isnull": True}) if field.null else rows


def _in_batches(field: EncryptedTextField) -> Iterator[models.Model]:
    """Every row with a value, in the order of the primary key; no query stays open while rows are written."""
    last = None
    while True:
        rows = _with_value(field).only("pk", field.attname).order_by("pk")
        batch = list(islice(rows if last is None else rows.filter(pk__gt=last), BATCH_ROWS))
        if not batch:
            return
        yield from batch
        last = batch[-1].pk
