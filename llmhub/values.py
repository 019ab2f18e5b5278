"""What a setting's text means. Each raises ValueError with what was expected."""

from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

BASE_DIR = Path(__file__).resolve().parent.parent
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def text(value: str) -> str:
    return value


def flag(value: str) -> bool:
    if value.lower() in ("1", "true", "yes", "on"):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected true or false")


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"expected a whole number from {minimum} to {maximum}") from None
        if not minimum <= number <= maximum:
            raise ValueError(f"expected a whole number from {minimum} to {maximum}")
        return number

    return parse


def names(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def host_ports(value: str) -> list[str]:
    entries = names(value)
    for entry in entries:
        host, _, port = entry.rpartition(":")
        if not host or not (port == "*" or port.isdigit()):
            raise ValueError(f"{entry!r} is not host:port (or host:*)")
    return entries


def origins(value: str) -> list[str]:
    entries = names(value)
    for entry in entries:
        if not entry.startswith(("http://", "https://")) or entry.count("/") != 2:
            raise ValueError(f"{entry!r} is not an origin (scheme://host[:port], no path)")
    return entries


def cache_mode(value: str) -> str:
    modes = {"deterministic": "", "on": "on", "off": "off"}
    if value.lower() not in modes:
        raise ValueError(f"expected one of {', '.join(modes)}")
    return modes[value.lower()]


def level(value: str) -> str:
    if value.upper() not in LOG_LEVELS:
        raise ValueError(f"expected one of {', '.join(LOG_LEVELS)}")
    return value.upper()


def time_zone(value: str) -> str:
    return ZoneInfo(value).key


def directory(value: str) -> Path:
    path = Path(value)
    return path if path.is_absolute() else BASE_DIR / path


def redis(value: str) -> str:
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("expected redis://, rediss:// or unix://")
    return value


def database(value: str) -> str:
    if value and not value.startswith(("sqlite://", "postgres://", "postgresql://")):
        raise ValueError("expected sqlite://, postgres:// or postgresql://")
    return value
