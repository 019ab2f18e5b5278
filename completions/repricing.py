"""Pricing calls of the past anew: with the prices now known for the day of each call.

History stays. What a call costs more or less is an adjustment beside its row, written by the ledger; so
doing it twice changes nothing. Left alone: calls that still run, that used nothing, whose price is still
unknown, and those settled late, because their row lacks the tokens they were billed for in the end.
"""

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count, Min, Q, QuerySet, Sum

from completions import arithmetic, ledger
from completions.ids import first_id
from completions.models import AdjustmentKind, Completion, State
from providers import pricing
from providers.models import LanguageModel
from providers.pricebook import PriceBook
from providers.types import Price

BATCH = 500  # rows read at a time
WRITERS = 64  # adjustments that wait for the ledger together, so that it commits them together
QUEUE_ROWS = 100_000  # the newest unpriced calls that the queue looks at: what a page may cost has an end


@dataclass(frozen=True, slots=True)
class Period:
    """Which calls: made from `since` to before `until`; `model` as asked for or as the upstream calls it."""

    since: datetime
    until: datetime | None = None
    model: str = ""
    provider: str = ""  # slug
    upstream_model: str = ""  # only as the upstream calls it
    unpriced_only: bool = False

    def rows(self) -> QuerySet[Completion]:
        found = unpriced() if self.unpriced_only else Completion.objects.exclude(state=State.RUNNING)
        found = found.filter(id__gte=first_id(self.since))
        if self.until is not None:
            found = found.filter(id__lt=first_id(self.until))
        if self.model:
            found = found.filter(Q(requested_model=self.model) | Q(model=self.model))
        exact = {"provider_slug": self.provider, "model": self.upstream_model}
        return found.filter(**{name: value for name, value in exact.items() if value})


@dataclass(slots=True)
class Total:
    """What pricing anew did, or would do, to the calls of one model. Nano-dollars; unpriced counts as 0."""

    provider: str
    model: str
    rows: int = 0  # all that were looked at
    changed: int = 0
    unknown: int = 0  # left alone: no price known for the day
    late: int = 0  # left alone: settled late
    old_nano: int = 0
    new_nano: int = 0


@dataclass(frozen=True, slots=True)
class _Correction:
    id: uuid.UUID
    cost_nano: int  # what the call shall have cost in all
    price: Price
    reason: str

    def write(self) -> None:
        ledger.correct(
            self.id,
            AdjustmentKind.REPRICE,
            self.cost_nano,
            prices=pricing.dump(self.price),
            price_source=self.price.source,
            reason=self.reason,
        )


@dataclass(slots=True)
class Repricing:
    """One pass over a period. `totals` grows as it goes."""

    period: Period
    dry_run: bool = False
    totals: dict[tuple[str, str], Total] = field(default_factory=dict)
    _book: PriceBook = field(default_factory=PriceBook)

    def run(self, limit: int | None = None) -> list[Total]:
        """Price every call of the period anew, or `limit` of them; totals by provider and model.

        Raises UnavailableError when the ledger cannot be written; what was written by then stays.
        """
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="reprice") as pool:
            for batch in _batches(self.period.rows(), limit):
                found = [correction for row in batch if (correction := self._correction(row)) is not None]
                if not self.dry_run:
                    list(pool.map(_Correction.write, found))
        return [total for _, total in sorted(self.totals.items())]

    def _correction(self, row: Completion) -> _Correction | None:
        """What is to be written, entered into `totals`."""
        total = self.totals.setdefault((row.provider_slug, row.model), Total(row.provider_slug, row.model))
        current = arithmetic.current_cost(row)
        found = self._priced(row, total)
        total.rows += 1
        total.old_nano += current or 0
        if found is None or found[0] == current:
            total.new_nano += current or 0
            return None
        cost, price = found
        total.changed += 1
        total.new_nano += cost
        reason = "priced for the first time" if current is None else "the prices of its day changed"
        return _Correction(row.pk, cost, price, reason)

    def _priced(self, row: Completion, total: Total) -> tuple[int, Price] | None:
        """The cost by what is known now, and the last price used. None: left alone, and `total` says why."""
        if any(adjustment.kind == AdjustmentKind.LATE for adjustment in row.adjustments.all()):
            total.late += 1
            return None
        day = row.created_at.astimezone(UTC).date()
        cost, price = 0, None
        for part in arithmetic.billed(row, list(row.attempt_rows.all())):
            usage = part.usage
            if usage is None:
                continue
            price = self._book.price(part.provider_slug, part.model, day)
            if price is None or pricing.fault(usage):
                total.unknown += 1
                return None
            cost += pricing.cost(usage, price)
        return None if price is None else (cost, price)


def _batches(rows: QuerySet[Completion], limit: int | None) -> Iterator[list[Completion]]:
    """Every row, or the oldest `limit`, with attempts and adjustments; no long-lived cursor, no offset."""
    last, left = uuid.UUID(int=0), limit
    found = rows.order_by("pk").prefetch_related("attempt_rows", "adjustments")
    while batch := list(found.filter(pk__gt=last)[: BATCH if left is None else min(BATCH, left)]):
        yield batch
        last = batch[-1].pk
        left = None if left is None else left - len(batch)


def unpriced() -> QuerySet[Completion]:
    """Finished calls that used something, at a price that nobody knew, and knows still."""
    return Completion.objects.filter(
        ~Q(state=State.RUNNING), cost_nano_usd=None, prompt_tokens__isnull=False, adjustments=None
    )


@dataclass(frozen=True, slots=True)
class Unpriced:
    """The unpriced calls of one model. `language_model` is where a price can be added; None: it is gone."""

    provider: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    since: datetime  # of the oldest
    language_model: LanguageModel | None
    price_known: bool  # by now: pricing anew will settle them


def queue() -> list[Unpriced]:
    """What waits for a price, most calls first; of the newest QUEUE_ROWS unpriced calls."""
    newest = unpriced().order_by("-created_at").values("pk")[:QUEUE_ROWS]
    groups = list(
        Completion.objects.filter(pk__in=newest)
        .order_by()
        .values("provider_slug", "model")
        .annotate(
            calls=Count("pk"),
            prompt=Sum("prompt_tokens"),
            completion=Sum("completion_tokens"),
            since=Min("created_at"),
        )
        .order_by("-calls", "provider_slug", "model")
    )
    rows = LanguageModel.objects.filter(name__in={group["model"] for group in groups})
    models = {(row.provider.slug, row.name): row for row in rows.select_related("provider")}
    book = PriceBook()
    return [_waiting(group, models, book) for group in groups]


def _waiting(
    group: Mapping[str, Any], models: dict[tuple[str, str], LanguageModel], book: PriceBook
) -> Unpriced:
    provider, model = group["provider_slug"], group["model"]
    return Unpriced(
        provider=provider,
        model=model,
        calls=group["calls"],
        prompt_tokens=group["prompt"],
        completion_tokens=group["completion"],
        since=group["since"],
        language_model=models.get((provider, model)),
        price_known=book.price(provider, model, group["since"].astimezone(UTC).date()) is not None,
    )
