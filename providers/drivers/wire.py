"""HTTP to upstreams: requests as they leave, deadlines, and answers that we can read."""

import re
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from providers.drivers import connections
from providers.drivers.base import HeaderListener
from providers.drivers.connections import Origin
from providers.drivers.exchange import MAX_BODY_BYTES, Connection, Exchange
from providers.drivers.refusals import refusal
from providers.errors import (
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from providers.types import Endpoint

MAX_ERROR_BYTES = 64 << 10  # of an error answer; the rest is not read
OWN_HEADERS = {"user-agent": "llmhub", "accept": "*/*", "accept-encoding": "identity"}
TARGET = re.compile(r"[!-~]*\Z")  # of a request line: printable, no space
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
VALUE = re.compile(r"[\t -~\x80-\xff]*\Z")


class Request(NamedTuple):
    """A request but for its body: worked out once per endpoint and address."""

    origin: Origin
    head: bytes  # up to the length of the body


def request(endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str]) -> Request:
    """Raises UpstreamUnreachable for what cannot be sent. Its text is left out: it may hold the key."""
    try:
        parts = urlsplit(url)
        tls, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if tls else 80)
        named = f"[{host}]" if ":" in host else host
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        given = {"host": named if port == (443 if tls else 80) else f"{named}:{port}"}
        given |= OWN_HEADERS | {name.lower(): value for name, value in headers.items()}
        sound = (
            host and TARGET.match(target) and all(NAME.match(n) and VALUE.match(v) for n, v in given.items())
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        head = f"{method} {target} HTTP/1.1\r\n{lines}content-length: ".encode("latin-1")
    except ValueError:  # no URL, or characters that HTTP has no room for
        sound = False
    if not sound:
        name = endpoint.provider
        raise UpstreamUnreachable(
            f"provider {name}: its base URL, key or headers cannot be sent; check them for stray characters",
            provider=name,
        )
    return Request(Origin(tls, host, port), head)


async def begin(
    endpoint: Endpoint,
    asked: Request,
    body: bytes,
    deadline: float,
    *,
    by: float | None = None,
    pool: connections.Pool | None = None,
) -> Exchange:
    """The exchange once its head is there; the caller closes it.

    It ends at loop time `deadline` (phase total), or before at `by` (phase first_token). Redirects are not
    followed. Raises UpstreamError.
    """
    home = pool or connections.pool()
    connection = home.take(asked.origin)
    if connection is not None:
        try:
            return await _exchanged(endpoint, asked, body, deadline, by, connection)
        except _ClosedMeanwhile:
            pass  # the upstream gave up the kept connection before it saw the request
    connection = await home.connect(asked.origin, endpoint, deadline)
    return await _exchanged(endpoint, asked, body, deadline, by, connection)


class _ClosedMeanwhile(UpstreamTruncated):
    """A connection that had been kept was closed without a byte of answer."""


async def _exchanged(
    endpoint: Endpoint,
    asked: Request,
    body: bytes,
    deadline: float,
    by: float | None,
    connection: Connection,
) -> Exchange:
    exchange = Exchange(endpoint.provider)
    if by is not None and by < deadline:
        exchange.until(by, partial(timed_out, endpoint, "first_token"))
    else:
        exchange.until(deadline, partial(timed_out, endpoint, "total"))
    connection.send(exchange, b"%b%d\r\n\r\n" % (asked.head, len(body)), body)
    try:
        await exchange.head()
    except UpstreamTruncated as error:
        exchange.close()
        if connection.used > 1 and not exchange.heard:
            raise _ClosedMeanwhile(error.message, provider=error.provider) from None
        raise
    except BaseException:
        exchange.close()
        raise
    return exchange


def timed_out(endpoint: Endpoint, phase: str) -> UpstreamTimeout:
    """The fault of an upstream that missed a deadline, in words."""
    timeouts = endpoint.timeouts
    what = {
        "first_token": f"sent no content within {timeouts.first_token:g} s",
        "idle": f"fell silent for {timeouts.idle:g} s",
        "total": "did not finish in time",
    }[phase]
    name = endpoint.provider
    return UpstreamTimeout(f"provider {name} {what}", phase=phase, provider=name)  # type: ignore[arg-type]


async def check(endpoint: Endpoint, exchange: Exchange, heard: HeaderListener) -> None:
    """Tell `heard` the headers. Raises unless they promise an answer that we can read."""
    headers = exchange.headers
    heard(endpoint.provider, headers)
    if not 200 <= exchange.status < 300:
        raise refusal(endpoint, exchange.status, await exchange.some(MAX_ERROR_BYTES), headers)
    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise exchange.invalid("an encoded answer though asked not to")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise exchange.too_long()


async def aclose() -> None:
    """Close the connections that the running loop keeps."""
    connections.close()
