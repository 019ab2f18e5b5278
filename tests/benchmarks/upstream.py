"""An upstream that costs next to nothing: one fixed answer to whatever is posted. `python -m … PORT`."""

import asyncio
import json
import sys

ANSWER = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A short answer of a few words. " * 8},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 24, "completion_tokens": 64, "total_tokens": 88},
    }
).encode()
HEAD = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n".encode()


class Upstream(asyncio.Protocol):
    """Answers once for each head and body that came in whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while (length := self.first_request()) is not None:
            self.pending = self.pending[length:]
            self.transport.write(HEAD + ANSWER)

    def first_request(self) -> int | None:
        """How many bytes the first whole request takes; None while some are missing."""
        head, separator, body = self.pending.partition(b"\r\n\r\n")
        if not separator:
            return None
        lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
        length = next((int(value) for name, _, value in lines if name == b"content-length"), 0)
        return len(head) + 4 + length if len(body) >= length else None


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
