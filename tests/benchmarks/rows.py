"""The table: each row asks one thing of the hub and of the floor. A new row is a new line here."""

from dataclasses import dataclass, replace

from tests.benchmarks.subjects import Request
from tests.benchmarks.work import ColdStart, IdleSockets, Latency, Posts, Sockets, Stall, Streams, Work


@dataclass(frozen=True)
class Row:
    name: str
    about: str
    request: Request
    work: Work


CHAT = Request()
STREAMED = replace(CHAT, stream=True)
API = replace(CHAT, path="/api/completions/")
HIT = replace(CHAT, temperature=0, unique=False)
SOCKET = replace(STREAMED, path="/ws/completions/", model="paced")

ROWS = (
    Row("chat-32", "/v1/chat/completions, 32 connections", CHAT, Posts(32)),
    Row("chat-8", "/v1/chat/completions, 8 connections", CHAT, Posts(8)),
    Row("hit-32", "the same call again, answered from the cache in memory", HIT, Posts(32)),
    Row("hit-redis", "the same with Redis: cache and limits", replace(HIT, redis=True), Posts(32)),
    Row("latency", "/v1/chat/completions, 1 connection: what the hub adds", CHAT, Latency()),
    Row("cold", "the first call after a start, and the second", CHAT, ColdStart()),
    Row("chat-100kB", "prompts of 100 kB, 8 connections", replace(CHAT, prompt_bytes=100_000), Posts(8)),
    Row(
        "stall-1MB",
        "prompts of 1 MB, one at a time: who else waits",
        replace(CHAT, prompt_bytes=1_000_000),
        Stall(),
    ),
    Row("stream-40", "40 streams, as fast as they go", STREAMED, Streams(40)),
    Row(
        "stream-100",
        "100 streams of 50 tokens a second, 200 tokens each",
        replace(STREAMED, model="paced"),
        Streams(100, warmup=2.0),
    ),
    Row(
        "stream-1000",
        "1,000 streams of 50 tokens a second, 200 tokens each",
        replace(STREAMED, model="paced"),
        Streams(1000, warmup=4.0, memory=True),
    ),
    Row("api-8", "POST /api/completions/, 8 connections", API, Posts(8)),
    Row(
        "api-stream", "POST /api/completions/ streamed, 40 at a time", replace(API, stream=True), Streams(40)
    ),
    Row("ws-500", "500 websockets of 50 tokens a second", SOCKET, Sockets(500)),
    Row("ws-idle", "5,000 websockets on which nothing happens", SOCKET, IdleSockets(5000)),
)
