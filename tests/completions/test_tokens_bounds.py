"""The bound of a prompt needs no encoding, and no count for any model is above it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions.tokens import ChatPrompt, count_messages
from tests.completions.test_tokens import WEATHER_TOOL, asked

texts = st.text(max_size=80)
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(
        lambda low: {"type": "image_url", "image_url": {"detail": low}}, st.sampled_from(["low", "high"])
    ),
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user"]), "content": texts | st.lists(parts, max_size=3)},
        optional={"name": texts},
    ),
    max_size=4,
)


@settings(deadline=None)  # the first example loads an encoding
@given(messages, st.lists(st.just(WEATHER_TOOL), max_size=2), st.sampled_from(["gpt-4", "gpt-4o-mini", "x"]))
def test_no_prompt_has_more_tokens_than_its_upper_bound(
    prompt: list[dict[str, Any]], tools: list[dict[str, Any]], model: str
) -> None:
    assert count_messages(prompt, model, tools).count <= ChatPrompt(prompt, tools).upper_bound()


words = st.text(max_size=12)
odd = st.none() | st.booleans() | st.integers() | words | st.lists(words, max_size=3)
schemas = st.recursive(
    odd,
    lambda inner: st.dictionaries(
        st.sampled_from(["type", "description", "enum", "properties", "items", "required", "anyOf", "$defs"]),
        st.dictionaries(words, inner, max_size=3) | st.lists(inner, max_size=3) | inner,
        max_size=4,
    ),
    max_leaves=12,
)
anything_a_tool_is = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": words}, optional={"description": odd, "parameters": schemas}
        )
    },
    optional={"type": odd, "custom": schemas},
)


@settings(deadline=None)
@given(st.lists(anything_a_tool_is | schemas, max_size=3), schemas, st.sampled_from(["gpt-4", "gpt-4o"]))
def test_no_request_has_more_tokens_than_its_upper_bound(tools: list[Any], beside: Any, model: str) -> None:
    prompt = ChatPrompt([], tools, {"response_format": beside, "functions": tools})
    assert prompt.count(model).count + prompt.slack(model) <= prompt.upper_bound()


@pytest.mark.parametrize(
    ("model", "most"),
    [("gpt-4o", 85 + 8 * 170), ("gpt-4o-mini", 2833 + 8 * 5667), ("o3", 75 + 8 * 150), ("other", 10_000)],
)
def test_the_bound_of_an_image_is_that_of_the_largest_there_can_be(model: str, most: int) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}}
    seen, text = ChatPrompt(asked(image), None), ChatPrompt(asked(), None)
    assert seen.count(model).count + seen.slack(model) == text.count(model).count + most
    assert seen.upper_bound() >= seen.count(model).count + seen.slack(model)


def test_the_bound_of_audio_and_files_is_that_of_the_densest_there_can_be() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": "A" * 4000}}
    assert ChatPrompt(asked(sound)).upper_bound() >= 150
    assert ChatPrompt(asked(file)).upper_bound() >= 3000  # a text of as many bytes
