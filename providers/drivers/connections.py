"""Connections to upstreams: kept for the next call, one pool per event loop, every connect checked."""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from aiohappyeyeballs import AddrInfoType, start_connection

from providers import egress
from providers.drivers.exchange import Connection
from providers.errors import NeverSent, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from providers.loops import PerLoop
from providers.types import Endpoint

IDLE_SECONDS = 15.0  # that an unused connection is kept: less than upstreams keep theirs
NEXT_ADDRESS_SECONDS = (
    0.25  # before a name's next address is tried beside one that does not answer (RFC 8305)
)


class Origin(NamedTuple):
    """What a connection leads to."""

    tls: bool
    host: str
    port: int


class Pool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[tuple[float, Connection]]] = {}  # since when, longest first
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(kept) for kept in self._idle.values())

    def take(self, origin: Origin) -> Connection | None:
        """A connection that was used before and is still open, the latest first."""
        kept = self._idle.get(origin)
        while kept:
            _, connection = kept.pop()
            if connection.open:
                return connection
        return None

    async def connect(self, origin: Origin, endpoint: Endpoint, deadline: float) -> Connection:
        """A new connection. Raises UpstreamError, or NeverSent where it is cancelled: nothing was sent."""
        loop = asyncio.get_running_loop()
        seconds = endpoint.timeouts.connect
        by = loop.time() + seconds
        try:
            async with asyncio.timeout_at(min(by, deadline)) as timeout:
                return await self._connect(origin, endpoint)
        except TimeoutError as error:
            if timeout.expired() and deadline < by:
                raise _timed_out(endpoint, "total", "did not finish in time") from error
            what = f"did not accept a connection within {seconds:g} s"
            raise _timed_out(endpoint, "connect", what) from error
        except asyncio.CancelledError as error:
            raise NeverSent(*error.args) from None
        except (OSError, ValueError) as error:
            raise _fault(error, origin, endpoint) from error

    async def _connect(self, origin: Origin, endpoint: Endpoint) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        connected = await start_connection(
            _allowed(addresses, origin, endpoint), happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
        )
        home = Home(self, origin)
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(home),
                sock=connected,
                ssl=await _tls() if origin.tls else None,
                server_hostname=origin.host if origin.tls else None,
            )
        except BaseException:
            connected.close()
            raise
        return connection

    def keep(self, origin: Origin, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._idle.setdefault(origin, []).append((loop.time(), connection))
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._close_idle)

    def close(self) -> None:
        """Close every connection that nobody uses."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for kept in self._idle.values():
            for _, connection in kept:
                connection.abort()
        self._idle.clear()

    def _close_idle(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for origin, kept in list(self._idle.items()):
            for since, connection in kept:
                if since <= oldest:
                    connection.abort()
            left = [(since, connection) for since, connection in kept if since > oldest and connection.open]
            if left:
                self._idle[origin] = left
            else:
                del self._idle[origin]
        if self._idle:
            first = min(kept[0][0] for kept in self._idle.values())
            self._sweep = loop.call_at(first + IDLE_SECONDS, self._close_idle)


class Home(NamedTuple):
    """The pool that a connection returns to, and its place there."""

    pool: Pool
    origin: Origin

    def keep(self, connection: Connection) -> None:
        self.pool.keep(self.origin, connection)


_pools = PerLoop(Pool)
pool = _pools.get


def close() -> None:
    """Close what the running loop keeps open."""
    if (found := _pools.pop()) is not None:
        found.close()


def _allowed(addresses: Iterable[AddrInfoType], origin: Origin, endpoint: Endpoint) -> list[AddrInfoType]:
    """Those that the hub may call. Raises UpstreamUnreachable when it may call none."""
    allowed, refused = [], None
    for address in addresses:
        try:
            egress.check_address(origin.host, origin.port, str(address[4][0]))
            allowed.append(address)
        except UpstreamUnreachable as error:
            refused = refused or error
    if not allowed and refused is not None:
        name = endpoint.provider
        raise UpstreamUnreachable(f"provider {name}: {refused.message}", provider=name)
    return allowed


@cache
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _tls() -> ssl.SSLContext:
    """The machine's own authorities; reading them takes a while, once."""
    if not _context.cache_info().currsize:
        await asyncio.to_thread(_context)
    return _context()


def _timed_out(endpoint: Endpoint, phase: str, what: str) -> UpstreamTimeout:
    name = endpoint.provider
    return UpstreamTimeout(f"provider {name} {what}", phase=phase, provider=name)  # type: ignore[arg-type]


def _fault(error: OSError | ValueError, origin: Origin, endpoint: Endpoint) -> UpstreamError:
    name = endpoint.provider
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {origin.host} is not valid"
    elif isinstance(error, socket.gaierror | ValueError):  # ValueError: a name that no resolver takes
        what = f"no address found for {origin.host}"
    else:
        what = f"cannot connect to {origin.host}:{origin.port}: {error.strerror or error}"
    return UpstreamUnreachable(f"provider {name}: {what}", provider=name)
