"""How states, amounts and times are written on the hub's pages."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from completions.models import Attempt, Completion, State
from providers.admin.base import badge
from providers.admin.language_models import dollars
from providers.types import NANO

STATE_KINDS = {
    State.OK: "success",
    State.COALESCED: "success",
    State.RUNNING: "info",
    State.CANCELLED: "warning",
    State.CLIENT_GONE: "warning",
    State.CLIENT_SLOW: "warning",
    State.SHUTDOWN: "warning",
    State.RECOVERED: "warning",
}


def state_badge(row: Completion | Attempt) -> SafeString:
    return badge(STATE_KINDS.get(State(row.state), "danger"), State(row.state).label)


def exact_dollars(nano: int) -> str:
    return dollars(Decimal(nano) / NANO)


def rounded_dollars(nano: int) -> str:
    """To the cent from a dollar on, else to three digits that count: what a sum is read for."""
    amount = Decimal(nano) / NANO
    digits = 2 if abs(amount) >= 1 or not amount else 2 - amount.adjusted()
    return dollars(round(amount, max(digits, 2)))


def sum_dollars(nano: int) -> str:
    """`rounded_dollars`, and the exact amount under the pointer where it is another."""
    exact, rounded = exact_dollars(nano), rounded_dollars(nano)
    return rounded if rounded == exact else format_html('<span title="{}">{}</span>', exact, rounded)


def sum_tile(name: str, nano: int, **rest: Any) -> dict[str, Any]:
    """A page's figure in large: a name and a sum."""
    return {"name": name, "value": rounded_dollars(nano), "exact": exact_dollars(nano), **rest}


def signed_dollars(nano: int) -> str:
    return f"{'−' if nano < 0 else '+'}{exact_dollars(abs(nano))}"


def milliseconds(value: int | None) -> str:
    return "-" if value is None else f"{value:,} ms"


def to_the_second(moment: datetime | None) -> str:
    return "-" if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"
