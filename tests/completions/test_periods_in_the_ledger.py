"""Which period of a budget a call is charged to, as its project's time zone changes, as processes race."""

import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from completions import accounts, ledger
from completions.admin.standing import current_span, standing, with_open_windows
from completions.balances import balances
from completions.budgets import Claim
from completions.ledger import books, sql
from completions.ledger.audit import audit
from completions.ledger.books import Books
from completions.ledger.operations import Adjust, Admit, Opening, Settle
from completions.models import AdjustmentKind, Budget, BudgetAlert, BudgetWindow, Completion, Project, State
from completions.periods import FOR_EVER, Period, Span, present, span_of
from completions.types import Caller
from providers.types import NANO
from tests.factories import make_project
from tests.settings import ON_POSTGRES

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ZONES = ("UTC", "America/New_York", "America/Los_Angeles", "Asia/Tokyo")


@pytest.fixture
def project() -> Project:
    return make_project()


def caller(project: Project) -> Caller:
    return Caller(project.pk, project.slug)


def claims(project: Project, at: datetime, zone: str = "UTC") -> list[Claim]:
    facts = accounts.project(project.pk)
    assert facts is not None
    return [Claim(one, "", span_of(one.period, at, ZoneInfo(zone))) for one in facts.budgets]


def asks(project: Project, hold: int, at: datetime | None = None, zone: str = "UTC") -> Admit:
    at = at or timezone.now()
    opening = Opening(
        ledger.new_id(), caller(project), "m", stream=False, claims=claims(project, at, zone), hold_nano=hold
    )
    return Admit(opening, at)


def post(*batch: Any) -> Books:
    with transaction.atomic():
        mine = Books(None, {})
        mine.post(batch)
    return mine


def settle(admit: Admit, cost: int) -> Settle:
    charges = dict.fromkeys(admit.windows, admit.opening.hold_nano)
    return Settle(admit.opening.id, {"state": State.OK, "cost_nano_usd": cost}, charges=charges)


def spend(project: Project, cost: int, at: datetime | None = None, zone: str = "UTC") -> bool:
    """A call that costs `cost`; whether it was admitted."""
    admit = asks(project, cost, at, zone)
    if post(admit).refused:
        return False
    post(settle(admit, cost))
    return True


def change(budget: Budget, **facts: Any) -> None:
    Budget.objects.filter(pk=budget.pk).update(**facts)


class TestTheRule:
    TODAY = Span(NOON - DAY / 2, NOON + DAY / 2)

    @pytest.mark.parametrize(
        ("latest", "span", "at", "counts"),
        [
            (None, TODAY, NOON, TODAY),
            (TODAY, Span(NOON - DAY / 4, NOON + DAY * 3 / 4), NOON, TODAY),
            (TODAY, Span(NOON + DAY / 2, NOON + DAY * 3 / 2), NOON - DAY, TODAY),
            (TODAY, TODAY, NOON + DAY / 2, TODAY),  # its row is written when its own period is over
            (
                TODAY,
                Span(NOON - DAY / 4, NOON + DAY * 3 / 4),
                NOON + DAY / 2,
                Span(NOON + DAY / 2, NOON + DAY * 3 / 4),
            ),
            (TODAY, Span(NOON + DAY, NOON + DAY * 2), NOON + DAY, Span(NOON + DAY, NOON + DAY * 2)),
            (FOR_EVER, FOR_EVER, NOON, FOR_EVER),
        ],
    )
    def test_the_last_period_counts_until_it_ends(
        self, latest: Span | None, span: Span, at: datetime, counts: Span
    ) -> None:
        assert present(latest, span, at) == counts


class TestTimeZones:
    def test_another_time_zone_gives_no_new_amount(self, project: Project) -> None:
        Budget.objects.create(project=project, amount=1, period=Period.DAY)
        assert spend(project, NANO, NOON)
        assert [spend(project, 1, NOON + timedelta(minutes=n), zone) for n, zone in enumerate(ZONES)] == (
            [False] * len(ZONES)
        )
        assert BudgetWindow.objects.count() == 1

    def test_the_next_period_begins_where_the_last_one_ended(self, project: Project) -> None:
        Budget.objects.create(project=project, amount=1, period=Period.DAY)
        spend(project, NANO, NOON)
        assert spend(project, NANO, NOON + DAY / 2, "America/New_York")
        [later, earlier] = BudgetWindow.objects.order_by("-starts_at")
        assert earlier.ends_at == later.starts_at == NOON + DAY / 2
        assert later.ends_at == NOON + DAY / 2 + timedelta(hours=5)
        assert audit() == []

    def test_the_api_and_the_admin_show_the_window_that_the_ledger_refuses_by(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, period=Period.DAY)
        spend(project, NANO)
        window = BudgetWindow.objects.get()
        for zone in ZONES[1:]:
            Project.objects.update(time_zone=zone)
            [shown] = balances(caller(project))
            assert (shown.span, shown.spent_nano) == (window.span, NANO)
            budget = Budget.objects.get()
            assert current_span(budget) == window.span
            for each in (budget, with_open_windows(Budget.objects.all()).get()):
                assert standing(each).spent == NANO

    def test_what_is_shown_of_end_users_is_in_the_windows_that_are_charged(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, period=Period.DAY, per_end_user=True)
        span = span_of(Period.DAY, timezone.now(), ZoneInfo("UTC"))
        BudgetWindow.objects.create(
            budget=budget, subject="ann", starts_at=span.start, ends_at=span.end, spent_nano=7
        )
        Project.objects.update(time_zone="Pacific/Kiritimati")
        [shown] = balances(caller(project), "ann")
        assert (shown.span, shown.spent_nano) == (span, 7)
        now = standing(Budget.objects.get())
        assert (now.spent, now.end_users) == (7, 1)


class TestRaces:
    def _at_once(self, orders: Sequence[Sequence[Project]]) -> list[BaseException]:
        errors: list[BaseException] = []

        def run(projects: Sequence[Project]) -> None:
            try:
                post(*(asks(project, 1) for project in projects))
            except BaseException as error:  # noqa: BLE001 - for the test to judge
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=[projects]) for projects in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return errors

    def test_processes_that_begin_a_period_in_another_order_do_not_deadlock(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        projects = [make_project("dx"), make_project("dy")]
        for each in projects:
            Budget.objects.create(project=each, amount=1, period=Period.DAY)
        found = Books._window_of

        def slowly(mine: Books, *claim: Any) -> int:
            window = found(mine, *claim)
            time.sleep(0.3)  # so that the other has begun its first, too
            return window

        monkeypatch.setattr(Books, "_window_of", slowly)
        assert self._at_once([projects, projects[::-1]]) == []
        assert BudgetWindow.objects.count() == 2
        assert audit_of_sums() == []

    @pytest.mark.skipif(not ON_POSTGRES, reason="SQLite lets one write at a time")
    def test_a_deadlock_is_told_from_a_database_that_is_away(self) -> None:
        rows = [make_project("dx").pk, make_project("dy").pk]
        both = threading.Barrier(2)
        errors: list[BaseException] = []

        def lock(order: list[int]) -> None:
            try:
                with transaction.atomic():
                    for pk in order:
                        Project.objects.select_for_update().get(pk=pk)
                        if pk == order[0]:
                            both.wait(10)
            except OperationalError as error:
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=lock, args=[order]) for order in (rows, rows[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [sql.must_repeat(error) for error in errors] == [True]

    @pytest.mark.parametrize(("undone", "committed"), [(0, True), (2, True), (3, False)])
    def test_a_batch_that_was_undone_for_another_is_tried_again_at_once(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, undone: int, committed: bool
    ) -> None:
        budget = Budget.objects.create(project=project, amount=1, period=Period.DAY)
        begin, undoing = Books.post, iter(range(undone))

        def deadlocked(mine: Books, batch: Sequence[Any]) -> None:
            begin(mine, batch)
            if next(undoing, None) is not None:
                raise OperationalError("deadlock detected") from Undone()

        monkeypatch.setattr(Books, "post", deadlocked)
        batch = [asks(project, 5)]
        if committed:
            books.committed(None, {}, batch)
        else:
            with pytest.raises(OperationalError):
                books.committed(None, {}, batch)
        found = BudgetWindow.objects.filter(budget=budget).values_list("held_nano", flat=True)
        assert list(found) == ([5] if committed else [])

    def test_a_database_that_is_away_is_not_tried_again(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries: list[object] = []

        def away(mine: Books, batch: Sequence[Any]) -> None:
            tries.append(batch)
            raise OperationalError("connection refused")

        monkeypatch.setattr(Books, "post", away)
        with pytest.raises(OperationalError):
            books.committed(None, {}, [asks(project, 5)])
        assert len(tries) == 1

    def test_a_database_that_is_away_is_none_that_wants_it_again(self) -> None:
        assert not sql.must_repeat(OperationalError("connection refused"))


class Undone(Exception):
    """The driver's error, as PostgreSQL's says so."""

    sqlstate = "40P01"


def audit_of_sums() -> list[str]:
    """The audit without a word on these tests' calls, which no process runs."""
    return [problem for problem in audit() if "does not live" not in problem]


class TestABudgetThatWasDeleted:
    def test_its_running_calls_are_settled_all_the_same(self, project: Project) -> None:
        deleted = Budget.objects.create(project=project, amount=1, period=Period.DAY)
        kept = Budget.objects.create(project=project, amount=1, period=Period.MONTH)
        admit = asks(project, 10)
        post(admit)
        assert len(admit.windows) == 2
        deleted.delete()
        post(settle(admit, 7))

        row = Completion.objects.get()
        assert (row.state, row.cost_nano_usd) == (State.OK, 7)
        window = BudgetWindow.objects.get(budget=kept)
        assert (window.spent_nano, window.held_nano) == (7, 0)
        assert audit() == []

    def test_one_that_was_charged_to_nothing_else_is_no_contradiction(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, period=Period.DAY)
        admit = asks(project, 10)
        post(admit)
        budget.delete()
        post(settle(admit, 7))
        post(Adjust(admit.opening.id, AdjustmentKind.REPRICE, 9, "", "", "a test"))
        assert Completion.objects.get().cost_nano_usd == 7
        assert audit() == []


class TestAlertsOfAnAmount:
    def _raised(self, budget: Budget) -> list[tuple[int, int]]:
        found = BudgetAlert.objects.filter(window__budget=budget).order_by("amount_nano", "threshold")
        return [(alert.threshold, alert.amount_nano) for alert in found]

    def test_a_lowered_amount_alerts_at_what_was_spent_before(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, thresholds=[80, 100])
        spend(project, NANO // 2)
        change(budget, amount=Decimal("0.4"))
        for _ in range(2):
            assert not spend(project, 1)
        assert self._raised(budget) == [(80, 4 * NANO // 10), (100, 4 * NANO // 10)]

    def test_a_raised_amount_alerts_anew(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=Decimal("0.001"), hard=False, thresholds=[100])
        spend(project, NANO // 1000)
        change(budget, amount=2)
        spend(project, NANO)
        assert self._raised(budget) == [(100, NANO // 1000)]
        for _ in range(2):
            spend(project, 3 * NANO // 2)
        assert self._raised(budget) == [(100, NANO // 1000), (100, 2 * NANO)]

    def test_an_amount_that_comes_back_has_alerted_already(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, hard=False, thresholds=[100])
        spend(project, NANO)
        for amount in (2, 1):
            change(budget, amount=amount)
            spend(project, 1)
        assert self._raised(budget) == [(100, NANO)]

    def test_a_mark_that_is_added_below_what_is_spent_alerts(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, thresholds=[50])
        spend(project, NANO * 7 // 10)
        change(budget, thresholds=[50, 60, 90])
        spend(project, 1)
        assert [mark for mark, _ in self._raised(budget)] == [50, 60]

    def test_a_budget_of_nothing_has_nothing_to_tell(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=0)
        assert not spend(project, 1)
        assert self._raised(budget) == []

    def test_a_period_that_is_over_does_not_alert_of_an_amount_it_never_had(self, project: Project) -> None:
        budget = Budget.objects.create(project=project, amount=1, period=Period.DAY, thresholds=[100])
        before = asks(project, NANO // 2, timezone.now() - 3 * DAY)
        post(before)
        post(settle(before, NANO // 2))
        change(budget, amount=Decimal("0.4"))
        late: uuid.UUID = before.opening.id
        post(Adjust(late, AdjustmentKind.REPRICE, NANO // 2 + 1, "", "", "a test"))
        assert BudgetWindow.objects.get().spent_nano == NANO // 2 + 1
        assert self._raised(budget) == []
