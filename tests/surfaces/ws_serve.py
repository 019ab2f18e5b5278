"""`manage.py serve` of a hub that is less patient with its Redis, so that tests of that take seconds."""

import os

import django
from django.core.management import call_command

SHARED = {
    "ALIVE_SECONDS": 1,
    "BLOCK_SECONDS": 0.2,
    "LEASE_SECONDS": 0.4,
    "PAUSE_SECONDS": 0.1,
    "AWAY_SECONDS": 1.0,
    "FIND_SECONDS": 0.6,
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmhub.settings")
    django.setup()
    from completions import control
    from completions.live import shared

    for name, seconds in SHARED.items():
        setattr(shared, name, seconds)
    control.PAUSE_SECONDS = 0.2
    call_command("serve")


if __name__ == "__main__":
    main()
