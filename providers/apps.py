from functools import lru_cache

from django.apps import AppConfig
from django.conf import settings

from providers import drivers, egress


class ProvidersConfig(AppConfig):
    """What we can call."""

    name = "providers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from providers import checks, rate_limits, registry  # noqa: F401 - registers checks and change signals

        egress.use(policy)
        drivers.listen(rate_limits.remember)


def policy() -> egress.Policy:
    """The addresses that the settings of this moment allow."""
    return _policy(tuple(settings.LLMHUB_EGRESS_ALLOW), settings.LLMHUB_LISTENS_ON_LOOPBACK)


@lru_cache(maxsize=8)
def _policy(allow: tuple[str, ...], loopback: bool) -> egress.Policy:
    return egress.Policy(allow, loopback=loopback)
