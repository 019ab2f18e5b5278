"""What an upstream can do wrong.

UpstreamError
├── UpstreamUnreachable      refused, DNS failure, TLS failure, no address we may call: never sent
├── UpstreamTimeout          phase: connect | first_token | idle | total
├── UpstreamRefused          an answer with an error status
│   ├── UpstreamAuthError        401/403: our key is not accepted
│   ├── UpstreamRedirect         3xx: not followed
│   ├── UpstreamRateLimited      429
│   ├── UpstreamOverloaded       408, 409, 5xx
│   └── UpstreamRejected         any other 4xx: the request itself is wrong
├── UpstreamResting          not called: it failed too often of late (its circuit is open)
├── UpstreamInvalid          nonsense: not JSON, wrong shape, an error inside a 200, over a cap
└── UpstreamTruncated        the answer ended before it was finished

NeverSent                    cancelled before any of the request was sent; no fault of the upstream
ProviderMisconfigured        our own record is unusable (its key cannot be decrypted)
DecryptionError              a stored secret cannot be read with the configured encryption keys
"""

import asyncio
from typing import Literal

Phase = Literal["connect", "first_token", "idle", "total"]
MESSAGE_CAP = 2048  # characters of an upstream's own words that we pass on


class UpstreamError(Exception):
    """What the upstream did, or failed to do. `message` is fit for the caller: it holds no key material."""

    retryable = True  # before the first content, the next target may be tried

    def __init__(self, message: str, *, provider: str = "") -> None:
        super().__init__(message[:MESSAGE_CAP])
        self.message = message[:MESSAGE_CAP]
        self.provider = provider


class UpstreamUnreachable(UpstreamError):
    """Nothing was sent: connection refused, DNS or TLS failure, or an address the hub may not call."""


class UpstreamTimeout(UpstreamError):
    """A deadline passed. `phase` says which; seconds are in the message."""

    def __init__(self, message: str, *, phase: Phase, provider: str = "") -> None:
        super().__init__(message, provider=provider)
        self.phase = phase


class UpstreamRefused(UpstreamError):
    """The upstream answered with an error status."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        provider: str = "",
    ) -> None:
        super().__init__(message, provider=provider)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after  # seconds


class UpstreamAuthError(UpstreamRefused):
    """The provider does not accept our key."""


class UpstreamRedirect(UpstreamRefused):
    """The provider points elsewhere: its base URL is not the final one."""


class UpstreamRateLimited(UpstreamRefused):
    """The provider's own rate limit."""


class UpstreamOverloaded(UpstreamRefused):
    """A passing fault of the provider: 408, 409 or 5xx."""


class UpstreamRejected(UpstreamRefused):
    """The request itself is wrong: no other attempt will help."""

    retryable = False


class UpstreamResting(UpstreamError):
    """It failed too often of late and is left alone for `retry_after` seconds: its circuit is open."""

    def __init__(self, message: str, *, retry_after: float, provider: str = "") -> None:
        super().__init__(message, provider=provider)
        self.retry_after = retry_after


class UpstreamInvalid(UpstreamError):
    """Not what the wire promises: not JSON, wrong shape, an error inside a 200, over a size cap."""


class UpstreamTooLarge(UpstreamInvalid):
    """Sound as far as it was read, but over a size cap: what was asked for can make any answer so."""


class UpstreamTruncated(UpstreamError):
    """The answer ended without finish_reason or [DONE]."""


class NeverSent(asyncio.CancelledError):
    """A driver's call was cancelled before the upstream got any of it: nothing can be owed for it."""


class ProviderMisconfigured(Exception):
    """Our own record cannot be used; the message names the provider, the field and the fix."""


class DecryptionError(Exception):
    """A stored secret cannot be read with the configured encryption keys."""
