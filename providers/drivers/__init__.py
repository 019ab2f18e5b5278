"""The drivers by the type of provider they serve. Each is imported when it is first needed."""

import sys
from collections.abc import Mapping
from functools import cache

from providers.drivers.base import Driver, HeaderListener
from providers.types import ProviderType

_listener: HeaderListener | None = None


def listen(listener: HeaderListener) -> None:
    """Tell `listener` the headers of every answer of an upstream from now on."""
    global _listener
    _listener = listener


def _heard(provider: str, headers: Mapping[str, str]) -> None:
    if _listener is not None:
        _listener(provider, headers)


@cache
def driver_for(kind: ProviderType) -> Driver:
    """The driver that speaks to providers of a type."""
    if kind is ProviderType.DEMO:
        from providers.drivers.demo import DemoDriver

        return DemoDriver()
    if kind is ProviderType.ANTHROPIC:
        from providers.drivers.anthropic import AnthropicDriver

        return AnthropicDriver(_heard)
    from providers.drivers.openai import OpenAIDriver

    return OpenAIDriver(_heard)


async def aclose() -> None:
    """Close the connections that this event loop keeps to upstreams."""
    if "providers.drivers.wire" in sys.modules:  # else there are none
        from providers.drivers import wire

        await wire.aclose()
