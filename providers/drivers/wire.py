"""HTTP to upstreams: one session per event loop, every connect checked, every fault translated."""

import asyncio
import errno
import socket
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from urllib.parse import urlsplit

import aiohttp

from providers import egress
from providers.drivers.base import HeaderListener
from providers.drivers.refusals import refusal
from providers.errors import (
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.types import Endpoint

MAX_BODY_BYTES = 64 << 20
MAX_ERROR_BYTES = 64 << 10  # of an error answer; the rest is not read

_sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = (
    weakref.WeakKeyDictionary()
)
_calling: ContextVar[tuple[str, int]] = ContextVar("_calling")


def _checked_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """The socket for a connect to `address`, if the hub may call it.

    An OSError, so that aiohttp tries the name's other addresses and reports it as "never sent".
    """
    family, kind, protocol, _, peer = address
    try:
        egress.check_address(*_calling.get(), str(peer[0]))
    except UpstreamUnreachable as error:
        raise PermissionError(errno.EACCES, error.message) from None
    return socket.socket(family=family, type=kind, proto=protocol)


def new_session() -> aiohttp.ClientSession:
    """A session that keeps no cookie, reads no environment, decodes nothing. The caller closes it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=_checked_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        auto_decompress=False,
        headers={"User-Agent": "llmhub", "Accept-Encoding": "identity"},
    )


def session() -> aiohttp.ClientSession:
    """The running loop's session; `aclose()` ends it."""
    loop = asyncio.get_running_loop()
    current = _sessions.get(loop)
    if current is None or current.closed:
        current = _sessions[loop] = new_session()
    return current


async def aclose() -> None:
    """Close the running loop's session and its connections."""
    current = _sessions.pop(asyncio.get_running_loop(), None)
    if current is not None:
        await current.close()


@asynccontextmanager
async def phase(endpoint: Endpoint, name: str, when: float, deadline: float) -> AsyncIterator[None]:
    """Ends the block at loop time `when` (phase `name`) or `deadline` (total); translates its faults."""
    timeout = asyncio.timeout_at(min(when, deadline))
    try:
        async with timeout:
            yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise translated(error, endpoint, name if when < deadline else "total", timeout.expired()) from None


def translated(error: Exception, endpoint: Endpoint, name: str, expired: bool = False) -> UpstreamError:
    """`error` in our tree. Not chained: aiohttp's errors hold the request's headers, and so our key."""
    provider = endpoint.provider
    timeouts = endpoint.timeouts
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        message = f"provider {provider} did not accept a connection within {timeouts.connect:g} s"
        return UpstreamTimeout(message, phase="connect", provider=provider)
    if expired and name == "first_token":
        message = f"provider {provider} sent no content within {timeouts.first_token:g} s"
        return UpstreamTimeout(message, phase="first_token", provider=provider)
    if expired and name == "idle":
        message = f"provider {provider} fell silent for {timeouts.idle:g} s"
        return UpstreamTimeout(message, phase="idle", provider=provider)
    if isinstance(error, TimeoutError):
        return UpstreamTimeout(
            f"provider {provider} did not finish in time", phase="total", provider=provider
        )
    return _connection_fault(error, provider)


def _connection_fault(error: Exception, provider: str) -> UpstreamError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        message = f"provider {provider}: the certificate of {error.host} is not valid"
        return UpstreamUnreachable(message, provider=provider)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UpstreamUnreachable(
            f"provider {provider}: no address found for {error.host}", provider=provider
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        reason = cause.strerror or str(cause)
        if cause.errno == errno.EACCES:  # egress names host, problem and fix
            return UpstreamUnreachable(f"provider {provider}: {reason}", provider=provider)
        message = f"provider {provider}: cannot connect to {error.host}:{error.port}: {reason}"
        return UpstreamUnreachable(message, provider=provider)
    if isinstance(error, aiohttp.ClientResponseError):
        message = f"provider {provider} sent something that is not HTTP"
        return UpstreamInvalid(message, provider=provider)
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
        message = f"provider {provider} closed the connection before its answer was complete"
        return UpstreamTruncated(message, provider=provider)
    # A URL or a header that cannot be sent. Its text is left out: it may hold the key.
    message = (
        f"provider {provider}: its base URL, key or headers cannot be sent; check them for stray characters"
    )
    return UpstreamUnreachable(message, provider=provider)


async def send(
    client: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    endpoint: Endpoint,
    data: bytes | None = None,
) -> aiohttp.ClientResponse:
    """The answer's head, from an address that egress allows; the caller closes it.

    Redirects are not followed. Raises aiohttp's errors: use it inside `phase`.
    """
    parts = urlsplit(url)
    _calling.set((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)))
    timeout = aiohttp.ClientTimeout(total=None, connect=endpoint.timeouts.connect)
    return await client.request(
        method, url, data=data, headers=headers, timeout=timeout, allow_redirects=False
    )


async def read_body(response: aiohttp.ClientResponse, provider: str, cap: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises UpstreamInvalid above `cap`."""
    body = bytearray()
    while data := await response.content.readany():
        body += data
        if len(body) > cap:
            raise _too_long(provider, cap)
    return bytes(body)


async def read_some(response: aiohttp.ClientResponse, cap: int = MAX_ERROR_BYTES) -> bytes:
    """At most about `cap` bytes of the body, and what there is of a body that breaks off."""
    body = bytearray()
    try:
        while len(body) < cap and (data := await response.content.readany()):
            body += data
    except (aiohttp.ClientError, OSError):
        pass  # an error answer that breaks off is still that error
    return bytes(body)


def undelivered(response: aiohttp.ClientResponse) -> bytes:
    """What had arrived before the connection broke.

    aiohttp's readers raise at once when the connection is broken, even while good bytes wait in their buffer:
    a caller who was slow would lose text, or the finish_reason of a complete answer.
    """
    return response.content._read_nowait(-1)


async def check(endpoint: Endpoint, response: aiohttp.ClientResponse, heard: HeaderListener) -> None:
    """Tell `heard` the headers. Raises unless they promise an answer that we can read."""
    heard(endpoint.provider, {name.lower(): value for name, value in response.headers.items()})
    if not 200 <= response.status < 300:
        raise refusal(endpoint, response.status, await read_some(response), response.headers)
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        message = f"provider {endpoint.provider} encoded its answer though asked not to"
        raise UpstreamInvalid(message, provider=endpoint.provider)
    if (response.content_length or 0) > MAX_BODY_BYTES:
        raise _too_long(endpoint.provider, MAX_BODY_BYTES)


def _too_long(provider: str, cap: int) -> UpstreamInvalid:
    return UpstreamInvalid(f"provider {provider} sent more than {cap >> 20} MiB", provider=provider)
