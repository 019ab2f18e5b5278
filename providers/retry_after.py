"""How long an answer asks us to wait, as vendors write it."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 3600.0  # seconds


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the upstream asks to wait: `retry-after-ms`, or `retry-after` (seconds or HTTP date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if seconds := _seconds(headers.get(name, ""), unit):
            return min(seconds, MAX_RETRY_AFTER)
    return None


def _seconds(text: str, unit: float) -> float | None:
    try:
        value = float(text) * unit
        return value if math.isfinite(value) and value > 0 else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    left = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(left, 1.0)
