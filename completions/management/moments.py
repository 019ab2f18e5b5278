"""Days and times as commands take them."""

from datetime import datetime, time

from django.core.management.base import CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime


def moment(text: str, option: str) -> datetime:
    """A day (its midnight) or an ISO time, in the hub's time zone where it names none."""
    try:
        day = parse_date(text)
        found = datetime.combine(day, time()) if day else parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise CommandError(f"{option} {text!r} is no day or time. Write 2026-11-01 or 2026-11-01T08:00:00Z.")
    return timezone.make_aware(found) if timezone.is_naive(found) else found
