"""The demo provider: what a newcomer sees first, without a network."""

import asyncio
import json
import time
from typing import Any
from uuid import UUID

import pytest
import tiktoken

from providers.drivers import driver_for
from providers.drivers.demo import DemoDriver
from providers.errors import UpstreamTimeout
from providers.types import Answer, Endpoint, Operation, ProviderType, Secret, StreamChunk, Target
from tests.providers.drivers.calls import Collected

TARGET = Target(Endpoint("demo", ProviderType.DEMO, "", Secret("")), UUID(int=1), 1, "demo", "demo")
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 6},
        "unit": {"enum": ["c", "f"]},
        "days": {"type": "array", "items": {"$ref": "#/$defs/day"}},
        "n": {"type": ["integer", "null"], "exclusiveMinimum": 4},
    },
    "required": ["city"],
    "$defs": {"day": {"type": "object", "properties": {"date": {"type": "string", "format": "date"}}}},
}
FILLED = {"city": "demo..", "unit": "c", "days": [{"date": "2026-01-31"}], "n": 5}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


def asking(prompt: Any, **parameters: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **parameters}


async def complete(prompt: Any, **parameters: Any) -> Answer:
    deadline = asyncio.get_running_loop().time() + 10
    return await DemoDriver(word_delay=0).complete(
        TARGET, Operation.CHAT, asking(prompt, **parameters), deadline=deadline
    )


async def stream(prompt: Any, *, word_delay: float = 0, **parameters: Any) -> list[StreamChunk]:
    deadline = asyncio.get_running_loop().time() + 10
    driver = DemoDriver(word_delay=word_delay)
    got = Collected()
    await driver.stream(TARGET, Operation.CHAT, asking(prompt, **parameters), got, deadline=deadline)
    return got.chunks


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("Hello!", "welcome to llmhub"),
        ("What is llmhub?", "self-hosted hub"),
        ("Why is the {sky} blue?", 'You wrote: "Why is the {sky} blue?"'),
        ([{"type": "text", "text": "two parts"}, {"type": "image_url", "image_url": {}}], '"two parts"'),
        ("", "no text"),
        ("x" * 5000, "xx…"),
    ],
)
async def test_it_answers_any_prompt_and_says_what_it_is(prompt: Any, says: str) -> None:
    answer = await complete(prompt)
    assert says in answer.content
    assert "demo provider" in answer.content
    assert answer.finish_reason == "stop"


async def test_the_same_request_gets_the_same_answer() -> None:
    first, second = await complete("Hi there"), await complete("Hi there")
    assert first.content == second.content
    assert first.body["id"] == second.body["id"]


async def test_a_stream_says_word_by_word_what_a_whole_answer_says() -> None:
    chunks = await stream("Tell me something")
    whole = await complete("Tell me something")
    assert "".join(chunk.content for chunk in chunks) == whole.content
    assert len([chunk for chunk in chunks if chunk.content]) == len(whole.content.split())
    assert {chunk.body["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.body["id"], chunk.body["created"], chunk.body["model"]) for chunk in chunks}) == 1
    assert chunks[-2].finish_reason == "stop"
    assert (chunks[-1].body["choices"], chunks[-1].usage) == ([], whole.usage)


async def test_usage_is_counted_with_the_real_tokenizer() -> None:
    answer = await complete("Hello!")
    encoding = tiktoken.get_encoding("o200k_base")
    assert answer.usage is not None
    assert answer.usage.completion == len(encoding.encode(answer.content))
    assert answer.usage.prompt == len(encoding.encode("userHello!")) + 3 + 3
    assert answer.body["usage"]["total_tokens"] == answer.usage.total


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_output_bound_holds(name: str) -> None:
    answer = await complete("Hello!", **{name: 5})
    assert answer.usage is not None
    assert (answer.finish_reason, answer.usage.completion) == ("length", 5)


@pytest.mark.parametrize("stop", ["llmhub", ["never", "llmhub"]])
async def test_it_stops_before_a_stop_word(stop: Any) -> None:
    answer = await complete("Hello!", stop=stop)
    assert answer.content == "Hello, and welcome to "
    assert "".join(chunk.content for chunk in await stream("Hello!", stop=stop)) == answer.content


async def test_json_mode_gives_json() -> None:
    answer = await complete("Hello!", response_format={"type": "json_object"})
    assert "welcome" in json.loads(answer.content)["answer"]


async def test_a_json_schema_is_filled() -> None:
    given = {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}}
    assert json.loads((await complete("Hello!", response_format=given)).content) == FILLED


async def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    given = {"type": "json_schema", "json_schema": {"name": "w", "schema": node}}
    assert json.loads((await complete("Hello!", response_format=given)).content)["next"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_tool_that_must_be_called_is_called(choice: Any) -> None:
    answer = await complete("Weather?", tools=TOOLS, tool_choice=choice)
    (call,) = answer.body["choices"][0]["message"]["tool_calls"]
    assert (answer.finish_reason, answer.content) == ("tool_calls", "")
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == FILLED
    chunks = await stream("Weather?", tools=TOOLS, tool_choice=choice)
    assert [chunk.tool_calls for chunk in chunks if chunk.tool_calls] == [({"index": 0, **call},)]


async def test_a_tool_that_may_be_called_is_not() -> None:
    assert (await complete("Weather?", tools=TOOLS, tool_choice="auto")).finish_reason == "stop"


async def test_words_come_one_after_the_other() -> None:
    started = time.monotonic()
    await stream("Hello!", word_delay=0.01, max_tokens=20)
    assert time.monotonic() - started > 0.1


async def test_the_deadline_holds() -> None:
    deadline = asyncio.get_running_loop().time() + 0.2
    with pytest.raises(UpstreamTimeout) as caught:
        await DemoDriver(word_delay=5).complete(TARGET, Operation.CHAT, asking("Hello!"), deadline=deadline)
    assert caught.value.phase == "total"


async def test_it_has_two_models_and_is_always_valid() -> None:
    driver = driver_for(ProviderType.DEMO)
    assert [info.name for info in await driver.list_models(TARGET.endpoint)] == [
        "demo-chat",
        "demo-embedding",
    ]
    assert (await driver.validate(TARGET.endpoint)).ok
