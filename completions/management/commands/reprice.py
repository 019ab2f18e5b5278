"""`manage.py reprice`: price calls of the past with the prices now known for their day, by adjustments."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from completions.errors import LLMServiceError
from completions.management.moments import moment
from completions.repricing import Period, Repricing, Total
from providers.models import LLMProvider
from providers.pricing import usd

HEAD = ("model", "rows", "changed", "no price", "late", "old USD", "new USD", "difference USD")


class Command(BaseCommand):
    help = "Write adjustments for calls whose price is known better now. Twice is as once; no row is edited."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", required=True, metavar="TIME", help="Calls made on or after it.")
        parser.add_argument("--until", metavar="TIME", help="Calls made before it. Left out: up to now.")
        parser.add_argument("--model", default="", help="As it was asked for, or as the upstream calls it.")
        parser.add_argument("--provider", default="", metavar="SLUG", help="Calls that it answered.")
        parser.add_argument("--unpriced-only", action="store_true", help="Only calls that have no cost yet.")
        parser.add_argument("--dry-run", action="store_true", help="Show what would change; change nothing.")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        provider = options["provider"]
        if provider and not LLMProvider.objects.filter(slug=provider).exists():
            raise CommandError(f"--provider: there is no provider {provider!r}.")
        period = Period(
            since=moment(options["since"], "--since"),
            until=moment(options["until"], "--until") if options["until"] else None,
            model=options["model"],
            provider=provider,
            unpriced_only=options["unpriced_only"],
        )
        if period.until is not None and period.until <= period.since:
            raise CommandError("--until is not after --since: no call can be between them.")
        try:
            totals = Repricing(period, dry_run).run()
        except LLMServiceError as error:
            raise CommandError(f"{error} What was written before stays; run the same again.") from error
        self.report(totals, dry_run)

    def report(self, totals: list[Total], dry_run: bool) -> None:
        lines = [HEAD, *map(_line, totals), _line(_sum(totals))]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for first, *others in lines:
            cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
            self.stdout.write("  ".join([first.ljust(widths[0]), *cells]).rstrip())
        if dry_run:
            self.stdout.write("Dry run: nothing was changed.")


def _line(total: Total) -> tuple[str, ...]:
    counts = (total.rows, total.changed, total.unknown, total.late)
    amounts = (total.old_nano, total.new_nano, total.new_nano - total.old_nano)
    name = "/".join(part for part in (total.provider, total.model) if part) or "(none)"
    return (name, *(f"{count:,}" for count in counts), *(f"{usd(amount):f}" for amount in amounts))


def _sum(totals: list[Total]) -> Total:
    whole = Total("", "all")
    for total in totals:
        for name in ("rows", "changed", "unknown", "late", "old_nano", "new_nano"):
            setattr(whole, name, getattr(whole, name) + getattr(total, name))
    return whole
