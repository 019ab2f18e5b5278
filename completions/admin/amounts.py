"""How states, amounts and times are written on the hub's pages."""

from datetime import datetime
from decimal import Decimal

from django.utils import timezone
from django.utils.safestring import SafeString

from completions.models import Attempt, Completion, State
from providers.admin.base import badge
from providers.admin.language_models import dollars
from providers.types import NANO

STATE_KINDS = {
    State.OK: "success",
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


def signed_dollars(nano: int) -> str:
    return f"{'−' if nano < 0 else '+'}{exact_dollars(abs(nano))}"


def milliseconds(value: int | None) -> str:
    return "-" if value is None else f"{value:,} ms"


def to_the_second(moment: datetime | None) -> str:
    return "-" if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}"
