"""What the writer does to the database: a batch of operations in one transaction.

Held at every commit:
- an admit brings no window of a hard budget above `spent + held = amount`;
- `spent >= 0`, `held >= 0` (CHECK constraints say so too);
- a window's `held` is the sum of its open charges, its `spent` the sum of what its settled ones cost, and of
  the adjustments of those calls;
- a row leaves `running` once, and only who moves it out settles its charges.

Windows are begun in the order of their names, locked and updated in the order of their ids, by every process:
no two wait for each other.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from completions.budgets import Claim
from completions.errors import BudgetExceededError
from completions.ledger import sql
from completions.ledger.operations import Adjust, Admit, Operation, Post, Settle
from completions.models import (
    Adjustment,
    AdjustmentKind,
    BudgetAlert,
    BudgetWindow,
    Completion,
    State,
)
from completions.periods import Span, present
from providers.pricing import usd

Windows = dict[tuple[str, str], tuple[Span, int]]  # the latest of (budget, end user): its period and id
TRIES = 3  # of a batch that the database undoes because of another process's


@dataclass(slots=True)
class Standing:
    """A window as this transaction sees it. `hard` is false while the budget is disabled."""

    id: int
    spent: int
    held: int
    amount: int
    hard: bool
    thresholds: str | Sequence[int]  # JSON as SQLite gives it
    webhook: bool
    open: bool  # its period has not ended
    was_spent: int
    was_held: int

    def move(self) -> tuple[int, int, int]:
        """What this transaction adds to `spent` and to `held`, and where."""
        return self.spent - self.was_spent, self.held - self.was_held, self.id


class Books:
    """One transaction. `refused` says which admits exceed a budget; everything else was written."""

    def __init__(self, epoch_id: int | None, known_windows: Windows) -> None:
        self.epoch_id = epoch_id
        self.known_windows = known_windows
        self.standings: dict[int, Standing] = {}
        self.new_windows: Windows = {}  # to be known once committed
        self.refused: dict[uuid.UUID, BudgetExceededError] = {}
        self._exceeded: dict[int, BudgetWindow] = {}
        self._admitted: list[Admit] = []
        self._running: set[Any] = set()  # of those to be settled, as the database gives their ids
        self._finals: dict[tuple[str, ...], list[list[Any]]] = {}  # values by columns
        self._settled: list[tuple[int, uuid.UUID]] = []  # cost, completion
        self._attempts: dict[tuple[str, ...], list[list[Any]]] = {}  # values by columns
        self._posts: dict[tuple[str, ...], list[list[Any]]] = {}  # values by columns
        self._contents: list[list[Any]] = []

    def post(self, batch: Sequence[Operation]) -> None:
        """Carry out a batch, inside the caller's transaction."""
        with sql.Statements() as self._statements:
            self._post(batch)
            alerts = self._alerts()
        if alerts:
            BudgetAlert.objects.bulk_create(alerts, ignore_conflicts=True)

    def _post(self, batch: Sequence[Operation]) -> None:
        admits = [op for op in batch if isinstance(op, Admit)]
        settles = [op for op in batch if isinstance(op, Settle)]
        unknown = [
            op.id for op in batch if isinstance(op, Adjust) or (isinstance(op, Settle) and op.charges is None)
        ]
        charged = self._charges(unknown) | {op.id: op.charges for op in settles if op.charges is not None}
        self._find_windows(admits)
        self._lock({window for charges in charged.values() for window in charges}, admits)
        self._running = self._still_running(settles)
        for op in batch:
            if isinstance(op, Admit):
                self._admit(op)
            elif isinstance(op, Settle):
                self._settle(op, charged.get(op.id, {}))
            elif isinstance(op, Post):
                self._post_one(op)
            else:
                self._adjust(op, charged.get(op.id, {}))
        self._write()

    # --- one operation each, in memory but for the rows that decide

    def _admit(self, op: Admit) -> None:
        hold = op.opening.hold_nano
        for window in op.windows:
            standing = self.standings[window]
            if standing.hard and standing.spent + standing.held + hold > standing.amount:
                self.refused[op.opening.id] = self._refusal(standing, hold)
                return
        for window in op.windows:
            self.standings[window].held += hold
        self._admitted.append(op)

    def _refusal(self, standing: Standing, hold: int) -> BudgetExceededError:
        if standing.id not in self._exceeded:  # read once: a batch may be refused hundreds of times
            windows = BudgetWindow.objects.select_related("budget__project", "budget__api_key")
            self._exceeded[standing.id] = windows.get(pk=standing.id)
        return _refusal(self._exceeded[standing.id], standing, hold)

    def _settle(self, op: Settle, charges: Mapping[int, int]) -> None:
        cost = op.final.get("cost_nano_usd")
        stored_id = sql.uuid_value(op.id)
        if stored_id not in self._running:
            self._settle_late(op, charges)
            return
        self._running.remove(stored_id)
        self._finals.setdefault(tuple(op.final), []).append(sql.settle_values(op.id, op.final))
        for window, hold in charges.items():
            if (standing := self.standings.get(window)) is not None:  # else its budget was deleted meanwhile
                standing.held -= hold
                standing.spent += cost or 0
        if charges:
            self._settled.append((cost or 0, op.id))
        for row in op.attempts:
            self._attempts.setdefault(tuple(row), []).append(sql.attempt_values(op.id, row))
        if op.content is not None:
            self._contents.append(sql.content_values(op.id, op.content))

    def _post_one(self, op: Post) -> None:
        values = sql.post_values(op.opening, op.created_at, self.epoch_id, op.final)
        self._posts.setdefault(tuple(op.final), []).append(values)
        if op.content is not None:
            self._contents.append(sql.content_values(op.opening.id, op.content))

    def _settle_late(self, op: Settle, charges: Mapping[int, int]) -> None:
        """Another process took this one for dead and settled the row at what it knew.

        Book the true cost once.
        """
        row = Completion.objects.filter(pk=op.id, state=State.RECOVERED).first()
        cost = op.final.get("cost_nano_usd")
        if row is None or cost is None or row.adjustments.filter(kind=AdjustmentKind.LATE).exists():
            return
        if cost == 0 and row.cost_nano_usd is None:
            return
        reason = f"settled as {op.final['state']} after it was recovered"
        prices, source = op.final.get("prices", ""), op.final.get("price_source", "")
        self._adjust(Adjust(op.id, AdjustmentKind.LATE, cost, prices, source, reason), charges)

    def _adjust(self, op: Adjust, charges: Mapping[int, int]) -> None:
        row = Completion.objects.select_for_update().get(pk=op.id)
        corrections = row.adjustments.aggregate(rows=Count("pk"), nano=Coalesce(Sum("amount_nano"), 0))
        difference = op.cost_nano - (row.cost_nano_usd or 0) - corrections["nano"]
        if not difference and (row.cost_nano_usd is not None or corrections["rows"]):
            return
        Adjustment.objects.create(
            completion_id=op.id,
            kind=op.kind,
            amount_nano=difference,
            prices=op.prices,
            price_source=op.price_source,
            reason=op.reason[:300],
            created_at=timezone.now(),
        )
        for window in charges:
            if (standing := self.standings.get(window)) is not None:
                standing.spent += difference

    # --- the database

    def _still_running(self, settles: Sequence[Settle]) -> set[Any]:
        """Those of the completions that are in state `running`: locked, this transaction moves them out."""
        if not settles:
            return set()
        ids = [sql.uuid_value(op.id) for op in settles]
        return {value for (value,) in self._statements.rows(sql.running(len(ids)), ids)}

    def _charges(self, wanted: Sequence[uuid.UUID]) -> dict[uuid.UUID, Mapping[int, int]]:
        """The charges of completions: hold by window."""
        if not wanted:
            return {}
        found: dict[uuid.UUID, dict[int, int]] = {}
        ids = [sql.uuid_value(one) for one in wanted]
        for completion, window, hold in self._statements.rows(sql.charges(len(ids)), ids):
            found.setdefault(uuid.UUID(str(completion)), {})[window] = hold
        return dict(found)

    def _find_windows(self, admits: Sequence[Admit]) -> None:
        """Set the windows of each. Those that are not known are found, or begun, in the order of names."""
        unknown: list[tuple[Admit, Claim]] = []
        for op in admits:
            known = {self._known_window(claim, op.created_at) for claim in op.opening.claims}
            op.windows = tuple(sorted(window for window in known if window is not None))
            if None in known:
                unknown += [(op, claim) for claim in op.opening.claims]
        unknown.sort(key=lambda one: (one[1].budget.id, one[1].subject, one[0].created_at))
        for op, claim in unknown:
            op.windows = tuple(sorted({*op.windows, self._window_of(claim, op.created_at)}))

    def _known_window(self, claim: Claim, at: datetime) -> int | None:
        name = (claim.budget.id, claim.subject)
        known = self.new_windows.get(name) or self.known_windows.get(name)
        if known is None or present(known[0], claim.span, at) is not known[0]:
            return None
        return known[1]

    def _window_of(self, claim: Claim, at: datetime) -> int:
        """The window's id, made when its first call comes.

        Never one of an earlier period than the latest there is, nor one that overlaps it: neither a clock
        that steps back nor another time zone begins anything anew.
        """
        if (known := self._known_window(claim, at)) is not None:
            return known
        budget_id = uuid.UUID(claim.budget.id)
        if connection.vendor == "postgresql":
            self._statements.rows(sql.LOCK_NAME, [f"{budget_id}/{claim.subject}"])
        windows = BudgetWindow.objects.filter(budget_id=budget_id, subject=claim.subject)
        latest = windows.order_by("-starts_at").first()
        span = present(latest.span if latest else None, claim.span, at)
        if latest is None or latest.span != span:
            latest, _ = windows.get_or_create(
                starts_at=span.start,
                defaults={"budget_id": budget_id, "subject": claim.subject, "ends_at": span.end},
            )
        self.new_windows[(claim.budget.id, claim.subject)] = (latest.span, latest.pk)
        return latest.pk

    def _lock(self, charged: set[int], admits: Sequence[Admit]) -> None:
        self._read_locked(charged | {window for op in admits for window in op.windows})
        if any(window not in self.standings for op in admits for window in op.windows):
            self.known_windows.clear()  # a window that this process knew was deleted with its budget
            self.new_windows.clear()
            self._find_windows(admits)
            self._read_locked({window for op in admits for window in op.windows} - self.standings.keys())

    def _read_locked(self, ids: set[int]) -> None:
        if not ids:
            return
        now = sql.time_value(timezone.now())
        found = self._statements.rows(sql.lock(len(ids)), [now, *sorted(ids)])
        for pk, spent, held, amount, hard, enabled, thresholds, webhook_url, is_open in found:
            self.standings[pk] = Standing(
                id=pk,
                spent=spent,
                held=held,
                amount=amount,
                hard=bool(hard and enabled),
                thresholds=thresholds if enabled else (),
                webhook=bool(webhook_url),
                open=bool(is_open),
                was_spent=spent,
                was_held=held,
            )

    def _alerts(self) -> list[BudgetAlert]:
        """One for each mark that is reached and has none yet of this amount."""
        reached = [(standing, mark) for standing in self.standings.values() for mark in _reached(standing)]
        if not reached:
            return []
        windows = sorted({standing.id for standing, _ in reached})
        raised = {tuple(row) for row in self._statements.rows(sql.alerted(len(windows)), windows)}
        return [
            _alert(standing, mark)
            for standing, mark in reached
            if (standing.id, mark, standing.amount) not in raised
        ]

    def _write(self) -> None:
        many = self._statements.many
        many(
            sql.admit(), [sql.admit_values(op.opening, op.created_at, self.epoch_id) for op in self._admitted]
        )
        held = [
            (sql.uuid_value(op.opening.id), window, op.opening.hold_nano)
            for op in self._admitted
            for window in op.windows
        ]
        many(sql.CHARGE, held)
        for columns, rows in self._finals.items():
            many(sql.settle(columns), rows)
        for columns, rows in self._posts.items():
            many(sql.post(columns), rows)
        many(sql.SETTLE_CHARGE, [(cost, sql.uuid_value(one)) for cost, one in self._settled])
        for columns, rows in self._attempts.items():
            many(sql.attempt(columns), rows)
        many(sql.INSERT_CONTENT, self._contents)
        moves = [standing.move() for _, standing in sorted(self.standings.items())]
        many(sql.MOVE_WINDOW, [move for move in moves if move[0] or move[1]])


def committed(epoch_id: int | None, known_windows: Windows, batch: Sequence[Operation]) -> Books:
    """Carry out a batch in a transaction of its own: again at once where the database undid it for another's.

    Raises Django's database errors.
    """
    for left in reversed(range(TRIES)):
        books = Books(epoch_id, known_windows)
        try:
            with transaction.atomic():
                books.post(batch)
            break
        except OperationalError as error:
            if not left or not sql.must_repeat(error):
                raise
    return books


def _reached(standing: Standing) -> Iterator[int]:
    """Marks at or below what is spent; of a period that is over, those that this batch crossed.

    Its amount may have been another then.
    """
    if standing.spent <= 0:
        return
    marks = json.loads(standing.thresholds) if isinstance(standing.thresholds, str) else standing.thresholds
    for mark in marks:
        limit = standing.amount * mark
        if limit <= standing.spent * 100 and (standing.open or standing.was_spent * 100 < limit):
            yield mark


def _alert(standing: Standing, mark: int) -> BudgetAlert:
    now = timezone.now()
    return BudgetAlert(
        window_id=standing.id,
        threshold=mark,
        spent_nano=standing.spent,
        amount_nano=standing.amount,
        created_at=now,
        deliver_at=now if standing.webhook else None,
    )


def _refusal(window: BudgetWindow, standing: Standing, hold: int) -> BudgetExceededError:
    reset = window.ends_at.isoformat() if window.ends_at else None
    limit, spent, held, needed = (usd(n) for n in (standing.amount, standing.spent, standing.held, hold))
    again = f"It begins anew at {reset}." if reset else "It does not begin anew; staff can raise it."
    return BudgetExceededError(
        f"The budget {window.budget} does not cover this call: ${spent:f} spent and ${held:f} held "
        f"of ${limit:f}, and the call may cost ${needed:f}. {again} A smaller max_tokens holds less.",
        budget=str(window.budget),
        budget_id=str(window.budget_id),
        limit=f"{limit:f}",
        spent=f"{spent:f}",
        held=f"{held:f}",
        hold=f"{needed:f}",
        reset=reset,
    )
