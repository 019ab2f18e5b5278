"""What of a request a model reads: all of that is held, and counted where the upstream does not say."""

from typing import Any

import pytest

from completions.prompts import NO_PROMPT, Prompt
from providers.types import Operation

HELLO = [{"role": "user", "content": "Hello"}]
WORDY = {f"field_{number}": {"type": "string", "description": "some words here"} for number in range(50)}
SCHEMA = {"type": "object", "properties": WORDY}
READ: dict[str, Any] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "functions": [{"name": "f", "description": "some words", "parameters": SCHEMA}],
    "prediction": {"type": "content", "content": "some words here" * 50},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"anyOf": [SCHEMA]}}}],
    "documents": ["some words here"] * 50,
}


def chat(**fields: Any) -> Prompt:
    return Prompt(Operation.CHAT, {"messages": HELLO, **fields})


@pytest.mark.parametrize("field", READ)
def test_all_that_a_model_reads_is_held_and_counted(field: str) -> None:
    without, whole = chat(), chat(**{field: READ[field]})
    counted = whole.count("gpt-4o").count - without.count("gpt-4o").count
    assert counted >= 100  # 50 times "some words here"
    assert whole.size - without.size >= counted
    assert not whole.count("gpt-4o").exact


def test_what_says_only_how_to_answer_is_no_prompt() -> None:
    silent = {"user": "ada", "metadata": {"a": "b"}, "stop": ["x"], "reasoning_effort": "low", "seed": 5}
    assert chat(**silent, temperature=0.5, stream=True, logit_bias={"5": 1}).size == chat().size
    assert chat(**silent).count("gpt-4o") == chat().count("gpt-4o")


@pytest.mark.parametrize("field", ["suffix", "guided_json", "grammar"])
def test_so_it_is_on_the_older_wire(field: str) -> None:
    without = Prompt(Operation.COMPLETION, {"prompt": "Hello"})
    whole = Prompt(Operation.COMPLETION, {"prompt": "Hello", field: "some words here " * 50})
    assert whole.count("gpt-4o").count - without.count("gpt-4o").count >= 150
    assert whole.size - without.size >= 800


def test_a_missing_prompt_is_what_the_older_wire_takes_for_it() -> None:
    assert Prompt(Operation.COMPLETION, {}).size == len(NO_PROMPT)


@pytest.mark.parametrize(
    ("part", "elsewhere"),
    [
        ({"type": "file", "file": {"file_id": "file-1"}}, True),
        ({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}, True),
        ({"type": "file", "file": {"file_data": "AAAA"}}, False),
        ({"type": "text", "text": "x"}, False),
    ],
)
def test_a_file_that_is_only_named_makes_it_open_ended(part: dict[str, Any], elsewhere: bool) -> None:
    message = {"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}
    assert chat(messages=[message]).open_ended is elsewhere


def test_an_image_in_the_message_is_roughly_an_image_and_not_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    assert chat(messages=[{"role": "user", "content": [image]}]).rough < 1000


async def test_the_most_is_by_the_model_that_counts_most() -> None:
    prompt = chat(messages=[{"role": "user", "content": "お誕生日おめでとう"}])
    counts = [prompt.count(model).count for model in ("gpt-4o", "gpt-4")]
    assert counts[0] < counts[1] == await prompt.at_most(["gpt-4o", "gpt-4", "gpt-4o"])
