"""The official Python client's async half, unmodified. (What it shares with the other is tested there.)"""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    pydantic_function_tool,
)

from completions.models import ApiKey, Budget, Completion, Project, State
from tests.clients.test_openai_python import Person, Weather
from tests.clients.wire import ASK, MODEL, VECTORS, FrontDoor, Upstream, single, tool_answer
from tests.completions.calls import set_price
from tests.fakes import completion, response
from tests.waiting import eventually


@pytest.fixture
async def client(base_url: str, key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=base_url, api_key=key) as client:
        yield client


@pytest.fixture
def poor(key: str) -> None:
    """The project's budget is spent."""
    set_price(MODEL, "1000", "2000")
    Budget.objects.create(project=Project.objects.get(), amount=Decimal("0.000001"), period="month")


@pytest.fixture
def one_at_a_time(key: str) -> None:
    """The key may make one call at a time."""
    ApiKey.objects.update(concurrent_calls=1)


async def ended_as(state: State) -> bool:
    return await asyncio.to_thread(eventually, lambda: Completion.objects.get().state == state)


async def gone(upstream: Upstream) -> bool:
    return await asyncio.to_thread(upstream.wait_for().wait_gone, 1.0)


async def test_a_chat_is_answered(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ASK)

    assert answer.choices[0].message.content == "Hello!"
    assert answer.model == MODEL
    assert answer._request_id


async def test_a_stream_is_iterated_with_its_usage_at_the_end(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.streams()

    stream = await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = [one async for one in stream]

    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Hello!"
    assert [one.usage is not None for one in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_raw_and_streaming_responses(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**ASK)
    async with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        lines = [line async for line in response.iter_lines()]

    assert raw.headers["x-request-id"] == raw.request_id != response.headers["x-request-id"]
    assert raw.headers["x-llmhub-provider"] == "upstream"
    assert raw.parse().choices[0].message.content == "Hello!"
    assert lines[-2:] == ["data: [DONE]", ""]


async def test_structured_output_and_tools(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.answers('{"name": "Ada", "age": 36}').answers(**tool_answer())

    parsed = await client.chat.completions.parse(**ASK, response_format=Person)
    called = await client.chat.completions.parse(
        **ASK, tools=[pydantic_function_tool(Weather, name="weather")]
    )

    assert parsed.choices[0].message.parsed == Person(name="Ada", age=36)
    calls = called.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == Weather(city="Oslo")


async def test_the_helper_puts_a_stream_together(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.streams(('{"name": "Ada"', ', "age": 36}'))

    async with client.chat.completions.stream(**ASK, response_format=Person) as stream:
        whole = await stream.get_final_completion()

    assert whole.choices[0].message.parsed == Person(name="Ada", age=36)


async def test_embeddings_and_models(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model=MODEL, input=["one", "two"])
    models = [model.id async for model in client.models.list()]

    assert [item.embedding for item in answer.data] == [single(vector) for vector in VECTORS]
    assert models == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL


async def test_fifty_calls_at_once_are_answered_each_with_its_own(
    client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.scripts(lambda request: [response(200, completion(request.body["messages"][0]["content"]))])

    async def one(text: str) -> str | None:
        messages: Any = [{"role": "user", "content": text}]
        answer = await client.chat.completions.create(model=MODEL, messages=messages)
        return answer.choices[0].message.content

    texts = [f"call {number}" for number in range(50)]
    assert await asyncio.gather(*map(one, texts)) == texts
    assert await asyncio.to_thread(Completion.objects.filter(state=State.OK).count) == 50


async def test_errors_have_their_classes(client: AsyncOpenAI, door: FrontDoor) -> None:
    with pytest.raises(AuthenticationError):
        await client.with_options(api_key="x").chat.completions.create(**ASK)
    with pytest.raises(NotFoundError):
        await client.chat.completions.create(**ASK | {"model": "unknown"})

    assert door.statuses == [401, 404]


@pytest.mark.usefixtures("poor")
async def test_a_spent_budget_is_told_in_exactly_one_call(client: AsyncOpenAI, door: FrontDoor) -> None:
    assert client.max_retries == 2

    with pytest.raises(APIStatusError) as caught:
        await client.chat.completions.create(**ASK, max_tokens=10)

    assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
    assert door.statuses == [402]


async def test_an_upstream_that_fails_twice_is_not_asked_again(
    client: AsyncOpenAI, upstream: Upstream, door: FrontDoor
) -> None:
    upstream.refuses(500)

    with pytest.raises(InternalServerError):
        await client.chat.completions.create(**ASK)

    assert (len(door.arrivals), len(upstream.requests)) == (1, 2)


@pytest.mark.usefixtures("one_at_a_time")
async def test_the_client_waits_as_told_and_then_succeeds(
    client: AsyncOpenAI, upstream: Upstream, door: FrontDoor
) -> None:
    upstream.hangs("idle").answers("At last!")
    stream = await client.chat.completions.create(**ASK, stream=True)
    waiting = asyncio.create_task(client.chat.completions.create(**ASK))
    assert await asyncio.to_thread(eventually, lambda: 429 in door.statuses)
    with pytest.raises(RateLimitError):
        await client.with_options(max_retries=0).chat.completions.create(**ASK)

    await stream.close()

    assert (await waiting).choices[0].message.content == "At last!"
    assert door.statuses == [200, 429, 429, 200]
    assert door.arrivals[3].at - door.arrivals[1].at >= 1.0


async def test_a_stream_that_breaks_raises_while_it_is_read(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.cuts(after=2)
    seen = []
    stream = await client.chat.completions.create(**ASK, stream=True)

    async def read() -> None:
        async for one in stream:
            seen.append(one.choices[0].delta.content)  # noqa: PERF401 - what came before it broke counts

    with pytest.raises(APIError) as caught:
        await read()

    assert seen == ["piece0 ", "piece1 "]
    assert caught.value.code == "upstream_truncated"


async def test_closing_a_stream_ends_the_upstream_call(client: AsyncOpenAI, upstream: Upstream) -> None:
    upstream.hangs("idle")

    stream = await client.chat.completions.create(**ASK, stream=True)
    await anext(stream)
    await stream.close()

    assert await gone(upstream)
    assert await ended_as(State.CLIENT_GONE)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_cancelling_the_task_ends_the_upstream_call(
    stream: bool, client: AsyncOpenAI, upstream: Upstream
) -> None:
    upstream.hangs("headers")

    task = asyncio.create_task(client.chat.completions.create(**ASK, stream=stream))
    await asyncio.to_thread(upstream.wait_for)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(upstream)
    assert await ended_as(State.CLIENT_GONE)
