"""What a call may ask for."""

from typing import Any

import pytest

from completions.errors import InvalidRequestError
from completions.requests import BESIDE_CONFIG, CONFIG_FIELDS, ROUTING, timeout_of, validate
from completions.types import CompletionRequest

HELLO = [{"role": "user", "content": "Hello"}]


def refusal(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        validate(CompletionRequest(**({"messages": HELLO} | fields)))
    return caught.value


def test_messages_and_parameters_become_one_body() -> None:
    request = CompletionRequest(HELLO, config={"temperature": 0.5, "stop": ["a"]}, model="m", user="ada")

    assert validate(request) == {"messages": HELLO, "temperature": 0.5, "stop": ["a"], "user": "ada"}


def test_the_timeout_is_for_the_hub_and_not_for_the_upstream() -> None:
    request = CompletionRequest(HELLO, config={"timeout": 2})

    assert validate(request) == {"messages": HELLO}
    assert timeout_of(request) == 2.0
    assert timeout_of(CompletionRequest(HELLO)) is None


def test_null_is_as_good_as_left_out() -> None:
    assert validate(CompletionRequest(HELLO, config=dict.fromkeys(CONFIG_FIELDS))) == {"messages": HELLO}


def test_the_newer_name_of_max_tokens_means_the_same() -> None:
    assert validate(CompletionRequest(HELLO, config={"max_completion_tokens": 9}))["max_tokens"] == 9
    assert refusal(config={"max_completion_tokens": 9, "max_tokens": 8}).details["param"]


def test_fields_of_a_message_that_the_hub_does_not_know_are_kept() -> None:
    messages = [{"role": "user", "content": "Hi", "cache_control": {"type": "ephemeral"}}]

    assert validate(CompletionRequest(messages))["messages"] == messages


@pytest.mark.parametrize("name", sorted(ROUTING))
def test_a_call_never_chooses_the_upstreams_address_key_or_headers(name: str) -> None:
    error = refusal(config={name: "http://127.0.0.1"})

    assert error.details["param"] == f"config.{name}"
    assert "never chooses" in error.message


@pytest.mark.parametrize("name", sorted(BESIDE_CONFIG))
def test_what_belongs_beside_config_is_refused_inside_it(name: str) -> None:
    assert "beside config" in refusal(config={name: "x"}).message


def test_an_unknown_parameter_is_named_with_those_that_are_known() -> None:
    message = refusal(config={"temprature": 1}).message

    assert "'temprature'" in message
    assert "temperature" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("top_p", -0.1),
        ("frequency_penalty", 3),
        ("presence_penalty", -3),
        ("stop", ""),
        ("stop", []),
        ("stop", [1]),
        ("timeout", 0),
        ("timeout", "soon"),
        ("seed", 1 << 63),
        ("response_format", "json"),
        ("response_format", {}),
        ("tools", []),
        ("tools", [{"type": "function"}]),
        ("tool_choice", 1),
        ("parallel_tool_calls", "yes"),
        ("reasoning_effort", 3),
        ("n", 2),
        ("top_logprobs", 21),
        ("logit_bias", []),
        ("metadata", "x"),
        ("modalities", []),
    ],
)
def test_a_bad_value_names_its_parameter(name: str, value: Any) -> None:
    error = refusal(config={name: value})

    assert error.details["param"] == f"config.{name}"
    assert error.message.startswith(f"config.{name} ")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hello", "messages"),
        ({"role": "user"}, "messages"),
        (None, "messages"),
        (["Hello"], "messages[0]"),
        ([{"content": "Hello"}], "messages[0].role"),
        ([{"role": "robot", "content": "Hello"}], "messages[0].role"),
        ([{"role": ["user"], "content": "Hello"}], "messages[0].role"),
        ([*HELLO, {"role": "user"}], "messages[1].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "assistant"}], "messages[0].content"),
        ([{"role": "tool", "content": "5"}], "messages[0].tool_call_id"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
        ([{"role": "user", "content": "\ud800"}], "messages"),
        ([{"role": "user", "content": "x", "extra": object()}], "messages"),
    ],
)
def test_a_bad_message_is_named_by_its_place(messages: Any, param: str) -> None:
    assert refusal(messages=messages).details["param"] == param


def test_an_assistant_message_may_hold_tool_calls_alone() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
    ]

    assert validate(CompletionRequest(messages))["messages"] == messages


@pytest.mark.parametrize("field", ["model", "provider", "user"])
@pytest.mark.parametrize("value", [5, "x" * 201, "a\x00b", "line\nbreak"])
def test_names_are_short_texts_without_control_characters(field: str, value: Any) -> None:
    assert refusal(**{field: value}).details["param"] == field


def test_endless_nesting_is_refused_and_does_not_crash() -> None:
    nested: Any = "x"
    for _ in range(2000):
        nested = [nested]

    assert refusal(config={"metadata": {"a": nested}}).details["param"] == "config"
