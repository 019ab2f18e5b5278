"""Token counts equal OpenAI's own where they claim to, without a network."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from completions import tokens
from completions.tokens import TokenCount, count_messages, count_text

ROOT = Path(__file__).resolve().parents[2]

# The example of OpenAI's cookbook, "How to count tokens with tiktoken", whose counts its API confirmed.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into "
        "plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for "
        "increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {
                    "type": "string",
                    "description": "The city and state, e.g. San Francisco, CA",
                },
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize(
    ("encoding", "text", "ids"),
    [
        ("cl100k_base", "tiktoken is great!", [83, 1609, 5963, 374, 2294, 0]),
        ("cl100k_base", "antidisestablishmentarianism", [519, 85342, 34500, 479, 8997, 2191]),
        ("cl100k_base", "2 + 2 = 4", [17, 489, 220, 17, 284, 220, 19]),
        ("cl100k_base", "お誕生日おめでとう", [33334, 45918, 243, 21990, 9080, 33334, 62004, 16556, 78699]),
        ("o200k_base", "tiktoken is great!", [83, 8251, 2488, 382, 2212, 0]),
        ("o200k_base", "antidisestablishmentarianism", [493, 129901, 376, 160388, 21203, 2367]),
        ("o200k_base", "2 + 2 = 4", [17, 659, 220, 17, 314, 220, 19]),
        ("o200k_base", "お誕生日おめでとう", [8930, 9697, 243, 128225, 8930, 17693, 4344, 48669]),
    ],
)
def test_the_vendored_encodings_give_the_reference_ids(encoding: str, text: str, ids: list[int]) -> None:
    model = {"cl100k_base": "gpt-4", "o200k_base": "gpt-4o"}[encoding]
    assert count_text(text, model) == TokenCount(len(ids), exact=True)
    assert tiktoken.get_encoding(encoding).encode_ordinary(text) == ids


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("gpt-3.5-turbo-0125", 129),
        ("gpt-3.5-turbo", 129),
        ("gpt-4-0613", 129),
        ("gpt-4", 129),
        ("gpt-4o", 124),
        ("gpt-4o-mini", 124),
        ("openai/gpt-4o", 124),
        ("ft:gpt-4o-mini-2024-07-18:org::id", 124),
    ],
)
def test_chat_messages_count_as_openai_counts_them(model: str, count: int) -> None:
    assert count_messages(JARGON, model) == TokenCount(count, exact=True)


@pytest.mark.parametrize(("model", "count"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101)])
def test_tools_follow_openais_formula_and_are_estimates(model: str, count: int) -> None:
    assert count_messages(WEATHER, model, [WEATHER_TOOL]) == TokenCount(count, exact=False)


@pytest.mark.parametrize("model", ["claude-opus-5-5", "gemma-3-270m", "gpt-99", "davinci", "", None])
def test_a_model_without_a_known_tokenizer_is_an_estimate(model: str | None) -> None:
    assert count_text("tiktoken is great!", model) == TokenCount(6, exact=False)
    assert count_messages(JARGON, model) == TokenCount(124, exact=False)


@pytest.mark.parametrize("model", ["gpt-5", "o3", "gpt-4.1", "gpt-oss-120b"])
def test_texts_are_exact_where_only_the_message_format_is_unpublished(model: str) -> None:
    assert count_text("tiktoken is great!", model).exact
    assert not count_messages(WEATHER, model).exact


def test_a_fine_tune_of_gpt_41_is_not_counted_as_gpt_4() -> None:
    assert count_text("お誕生日おめでとう", "ft:gpt-4.1-mini-2025-04-14:org::id") == TokenCount(8, exact=True)


def test_special_tokens_are_plain_text() -> None:
    assert count_text("<|endoftext|>", "gpt-4o") == TokenCount(7, exact=True)
    assert count_text("<|start|>system<|message|>", "gpt-oss-20b").count > 3


def test_an_empty_text_has_no_tokens() -> None:
    assert count_text("", "gpt-4o") == TokenCount(0, exact=True)


def test_one_text_part_counts_as_the_text_itself() -> None:
    plain = count_messages([{"role": "user", "content": "Hello there"}], "gpt-4o")
    assert count_messages(asked({"type": "text", "text": "Hello there"}), "gpt-4o") == plain
    assert plain == TokenCount(3 + 3 + 1 + 2, exact=True)


@pytest.mark.parametrize(
    ("model", "image", "tokens_of_image"),
    [
        ("gpt-4o", {"url": "https://example.com/a.png", "detail": "low"}, 85),
        ("gpt-4o", {"url": "https://example.com/a.png", "detail": "high"}, 765),
        ("gpt-4o", {"url": "data:image/png;base64," + "A" * 100_000}, 765),
        ("gpt-4o-mini", {"url": "https://example.com/a.png"}, 25_501),
        ("o3", {"url": "https://example.com/a.png", "detail": "low"}, 75),
        ("gpt-4.1", {"url": "https://example.com/a.png", "detail": "low"}, 85),
        ("claude-opus-5-5", {"url": "https://example.com/a.png"}, 765),
    ],
)
def test_an_image_is_estimated_by_its_detail(model: str, image: dict[str, str], tokens_of_image: int) -> None:
    text = {"type": "text", "text": "What is this?"}
    without = count_messages(asked(text), model).count
    seen = count_messages(asked(text, {"type": "image_url", "image_url": image}), model)
    assert seen == TokenCount(without + tokens_of_image, exact=False)


def test_audio_and_files_are_estimated_by_their_size_not_as_text() -> None:
    data = "A" * 64_000  # 48,000 bytes
    sound = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": data, "filename": "a.pdf"}}
    assert count_messages(asked(sound), "gpt-4o") == TokenCount(7 + 11, exact=False)
    assert count_messages(asked(file), "gpt-4o") == TokenCount(7 + 3001, exact=False)


def test_tool_calls_and_their_results_are_estimates() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    history: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    counted = count_messages(history, "gpt-4o")
    assert not counted.exact
    assert counted.count > 3 * 2 + 3


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": 7},
        {"role": "user", "content": [None, 7, {"type": "text", "text": None}, {"type": "image_url"}]},
        {"role": None, "name": ["x"], "content": {"deep": ["er"]}},
        {"role": "assistant", "tool_calls": [None, {"function": {"name": 1}}]},
        {},
    ],
)
def test_odd_shapes_are_counted_and_never_raise(message: dict[str, Any]) -> None:
    odd_tool = {"function": {"name": "f", "parameters": {"properties": {"a": 1, "b": {"enum": "x"}}}}}
    assert count_messages([message], "gpt-4o", [odd_tool, {"type": "custom"}]).count > 0


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"anyOf": [{"description": "one two three four"}]}}}, 4),
        ({"properties": {}, "$defs": {"X": {"description": "one two three four"}}}, 4),
        ({"oneOf": [{"properties": {"a": {"description": "one two three four"}}}]}, 4),
        ({"properties": {"a": {"type": "array", "items": {"description": "one two three four"}}}}, 4),
        ({"properties": {"a": {"type": ["string", "one two three four"]}}}, 4),
        ({"properties": {"a": {"default": "one two three four"}}}, 4),
        ({"properties": {"a": {}}, "required": ["a", "one two three four"]}, 4),
        ({"description": "one two three four"}, 4),
    ],
)
def test_what_the_formula_is_silent_about_counts_as_its_json(schema: dict[str, Any], words: int) -> None:
    def counted(schema: Any) -> int:
        return count_messages(WEATHER, "gpt-4o", [{"function": {"name": "f", "parameters": schema}}]).count

    shorter = json.loads(json.dumps(schema).replace("one two three four", ""))
    assert counted(schema) - counted(shorter) >= words - 1


# --- long texts


def test_a_long_text_counts_the_same_in_pieces() -> None:
    text = "Hello world, it's 12345 o'clock; «naïve» 中文，字。\n\n" * 6000
    whole = len(tiktoken.get_encoding("o200k_base").encode_ordinary(text))
    assert count_text(text, "gpt-4o") == TokenCount(whole, exact=True)


@settings(deadline=None)  # the first example loads an encoding
@given(st.text(alphabet=st.sampled_from("ab1 2\n\t.,'sS中。é\u0301_-/"), max_size=200))
def test_cuts_at_seams_change_no_count(text: str) -> None:
    for name in ("o200k_base", "cl100k_base"):
        encode = tiktoken.get_encoding(name).encode_ordinary
        seams = [seam.start() for seam in tokens.SEAM.finditer(text)]
        pieces = [text[start:end] for start, end in zip([0, *seams], [*seams, len(text)], strict=True)]
        assert sum(len(encode(piece)) for piece in pieces) == len(encode(text))


@pytest.mark.parametrize("run", ["a", " ", "\t", "\n", "-", "中", "abcdefghij", "\U0001f600"])
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4"])
def test_a_megabyte_without_a_seam_is_counted_in_seconds_and_flagged(run: str, model: str) -> None:
    started = time.monotonic()
    counted = count_text((run * 1_000_000)[:1_000_000], model)
    assert time.monotonic() - started < 10
    assert not counted.exact
    assert 0 < counted.count <= 4_000_000


# --- loading


def run_alone(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, where nothing is loaded yet."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


NO_NETWORK = """
import socket

def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked: {args}")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket, "socket", type("socket", (socket.socket,), {name: refuse}))
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
"""


@pytest.mark.parametrize("environment", [{}, {"TIKTOKEN_CACHE_DIR": "/nowhere"}, {"TIKTOKEN_CACHE_DIR": ""}])
def test_counting_works_with_the_network_cut_off(environment: dict[str, str]) -> None:
    script = NO_NETWORK + (
        "from completions.tokens import count_text\n"
        "models = ('gpt-4', 'gpt-4o', 'gpt-oss-20b', 'x', 'davinci')\n"
        "print(*(count_text('tiktoken is great!', model).count for model in models))"
    )
    done = run_alone(script, **environment)
    assert (done.stdout.strip(), done.stderr) == ("6 6 6 6 6", "")


def test_a_missing_encoding_is_named_and_never_downloaded() -> None:
    script = NO_NETWORK + (
        "from pathlib import Path\n"
        "from completions import tokens\n"
        "tokens.DATA = Path('/nowhere')\n"
        "tokens.count_text('x', 'gpt-4o')"
    )
    done = run_alone(script)
    assert "RuntimeError" in done.stderr
    assert "missing or damaged. Restore it from the repository." in done.stderr


def test_threads_that_race_for_the_first_load_all_count() -> None:
    script = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from completions.tokens import count_text\n"
        "models = ['gpt-4', 'gpt-4o'] * 16\n"
        "with ThreadPoolExecutor(32) as pool:\n"
        "    counts = list(pool.map(lambda m: count_text('tiktoken is great!', m).count, models))\n"
        "print(set(counts), len(counts))"
    )
    done = run_alone(script)
    assert (done.stdout.strip(), done.stderr) == ("{6} 32", "")


def test_importing_the_module_loads_no_encoding() -> None:
    done = run_alone(
        "import sys, completions.tokens; print('tiktoken' in sys.modules, 'django' in sys.modules)"
    )
    assert done.stdout.strip() == "False False"


def test_a_count_loads_the_encoding_it_needs_and_no_other() -> None:
    script = (
        "from completions.tokens import count_text, is_loaded; print(is_loaded('gpt-4o'));"
        "count_text('x', 'gpt-4o'); print(is_loaded('gpt-4o'), is_loaded('gpt-4'));"
        "from tiktoken import registry as r; print(*r.ENCODINGS)"
    )
    assert run_alone(script).stdout.split() == ["False", "True", "False", "o200k_base"]
