"""The network between a browser and the hub, to be cut."""

import asyncio
import threading
from typing import Any, Self

from tests.conftest import LiveHub

WAIT_SECONDS = 5.0


class Line:
    """Carries TCP to the hub and back; at `url` the hub is to be found through it.

    `most_bytes`: of what comes on a websocket; then that connection breaks. `frozen`: nothing passes, and
    nothing breaks. `down`: connections break as they are made. `sockets`: how many websockets were opened.
    """

    def __init__(self) -> None:
        self.hub: LiveHub
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lead_to(self, hub: LiveHub) -> None:
        """From now on, and as if nothing had happened before."""
        self.hub = hub
        self.most_bytes: int | None = None
        self.frozen = self.down = False
        self.sockets = 0

    def cut(self) -> None:
        """Break every connection there is."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(WAIT_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        hub_reader, hub_writer = await asyncio.open_connection(self.hub.host, self.hub.port)
        both = {writer, hub_writer}
        self._open |= both
        try:
            first = await reader.read(1 << 16)
            is_socket = b"upgrade: websocket" in first.lower()
            self.sockets += is_socket
            hub_writer.write(first)
            limit = self.most_bytes if is_socket else None
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._carry(reader, hub_writer, None)),
                    asyncio.ensure_future(self._carry(hub_reader, writer, limit)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._open -= both
            for end in both:
                end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: Any, limit: int | None) -> None:
        """Until an end comes, or `limit` bytes have passed."""
        try:
            while data := await source.read(1 << 16):
                while self.frozen:  # noqa: ASYNC110 - set by another thread
                    await asyncio.sleep(0.01)
                target.write(data[:limit])
                await target.drain()
                if limit is not None and (limit := limit - len(data)) <= 0:
                    return
        except ConnectionError:
            pass  # it was cut
