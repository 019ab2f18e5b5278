"""`manage.py serve` of a hub whose leases end soon, so that tests of processes that die take seconds."""

import os

import django
from django.core.management import call_command

LEASE_SECONDS = 1.5


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmhub.settings")
    django.setup()
    from completions.cache import flights

    flights.LEASE_SECONDS = LEASE_SECONDS
    call_command("serve")


if __name__ == "__main__":
    main()
