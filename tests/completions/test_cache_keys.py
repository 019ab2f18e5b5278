"""The key of a cached answer: equal if and only if the same is asked, of one model, for the same people."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions.cache.fingerprint import canonical, key_of
from completions.requests import CONFIG_FIELDS
from completions.v1.bodies import CHECKS
from providers.drivers.chunks import request_bytes
from providers.types import Endpoint, Operation, Price, ProviderType, Rate, Secret, Target
from tests.completions.asked import ASKED, BESIDE, TOOL

CHAT, COMPLETION, EMBEDDING = Operation.CHAT, Operation.COMPLETION, Operation.EMBEDDING
PROJECT = "project 1"
OPERATIONS = list(ASKED)


def target(**changes: Any) -> Target:
    at = Endpoint("acme", ProviderType.OPENAI_COMPATIBLE, "https://acme.example/v1", Secret("sk"))
    return Target(at, UUID(int=1), 1, "gpt-4o", "gpt-4o", **changes)


def at(**changes: Any) -> Target:
    """A target whose endpoint is another."""
    made = target()
    return replace(made, endpoint=replace(made.endpoint, **changes))


def key(
    body: Mapping[str, Any], operation: Operation = CHAT, *, scope: str = PROJECT, of: Target | None = None
) -> str:
    asked = of or target()
    return key_of(scope, asked, operation, canonical(asked, operation, body))


def read(text: str) -> str:
    """The key of a chat request as JSON text."""
    return key(orjson.loads(text))


# --- each part of a request


Path = tuple[str | int, ...]


def parts(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where every value lies that a body is made of, objects and lists too."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from parts(one, (*path, name))


def changed(value: Any) -> list[Any]:
    """Other values in its place."""
    if isinstance(value, dict):
        return [{**value, "more": 1}, [value]]
    if isinstance(value, list):
        return [[*value, *value[:1]], value[:-1], *([value[::-1]] if len(value) > 1 else [])]
    if isinstance(value, bool):
        return [not value, int(value), str(value)]
    if isinstance(value, int | float):
        return [value + 1, value + 0.125, -value, str(value), True]
    return [f"{value} ", str(value).upper() + "x", 1]


def with_part(body: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(body)
    place: Any = made
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return made


def without_part(body: dict[str, Any], path: Path) -> dict[str, Any]:
    made = copy.deepcopy(body)
    place: Any = made
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return made


def part_of(body: Any, path: Path) -> Any:
    for name in path:
        body = body[name]
    return body


EVERY_PART = [
    pytest.param(operation, path, id=f"{operation}-{'.'.join(map(str, path))}")
    for operation, body in ASKED.items()
    for path in parts(body)
]


@pytest.mark.parametrize(("operation", "path"), EVERY_PART)
def test_every_part_of_what_is_asked_changes_the_key(operation: Operation, path: Path) -> None:
    body = ASKED[operation]
    bodies = [with_part(body, path, other) for other in changed(part_of(body, path))]
    bodies.append(without_part(body, path))

    keys = {key(one, operation) for one in (body, *bodies)}
    assert len(keys) == 1 + len({orjson.dumps(one) for one in bodies})


def test_every_field_that_the_surfaces_know_is_among_those() -> None:
    config = {name for name, field in CONFIG_FIELDS.items() if field.sent}
    checked = {operation: set(CHECKS[operation]) for operation in ASKED}

    beside = {*BESIDE, "model", "max_completion_tokens"}
    assert config - beside <= ASKED[CHAT].keys()
    assert all(checked[operation] - beside <= ASKED[operation].keys() for operation in ASKED)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("field", BESIDE)
def test_how_an_answer_is_delivered_does_not(operation: Operation, field: str) -> None:
    body = ASKED[operation]

    assert key({**body, field: BESIDE[field]}, operation) == key(body, operation)


def test_but_inside_of_a_field_those_names_mean_something_else() -> None:
    body = {"messages": [{"role": "user", "content": "Hi", "metadata": "a"}]}

    assert key(body) != key(with_part(body, ("messages", 0, "metadata"), "b"))


# --- spellings


@pytest.mark.parametrize(
    "spellings",
    [
        ("1", "1.0", "1e0", "10e-1", "1.00"),
        ("0", "0.0", "-0.0", "-0", "0e5"),
        ("0.5", "5e-1", "0.50"),
        ("100", "1e2", "1E+2", "100.0"),
        ("-3", "-3.0"),
        ("100000000000000000000", "1e20"),
    ],
)
@pytest.mark.parametrize("where", ['{"temperature": ?}', '{"vendor_field": {"deep": [?]}}'])
def test_a_number_is_the_same_however_it_is_written(spellings: tuple[str, ...], where: str) -> None:
    assert len({read(where.replace("?", spelling)) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    "others", [("1", "true", '"1"', "[1]", "1.0000001"), ("0", "false", '""', "[]", "{}")]
)
def test_but_no_other_value_is_a_number(others: tuple[str, ...]) -> None:
    assert len({read(f'{{"vendor_field": {other}}}') for other in others}) == len(others)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """The same with the names of every object in the opposite order, and its whole numbers as fractions."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(list(value))}
    if isinstance(value, list):
        return [turned(one) for one in value]
    return float(value) if type(value) is int else value


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=3), json_values, max_size=4))
def test_the_order_of_names_does_not_matter(body: dict[str, Any]) -> None:
    assert key(turned(body)) == key(body)


@settings(deadline=None)
@given(json_values, json_values)
def test_the_order_of_a_list_does(one: Any, other: Any) -> None:
    same = key({"vendor_field": one}) == key({"vendor_field": other})

    assert (key({"vendor_field": [one, other]}) == key({"vendor_field": [other, one]})) is same


@pytest.mark.parametrize("text", ["\ud800", "é", "\u2028", "\0", "😀"])
def test_any_text_has_a_key(text: str) -> None:
    body = {"messages": [{"role": "user", "content": text}]}

    assert key(body) == key(copy.deepcopy(body)) != key({"messages": [{"role": "user", "content": "?"}]})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_null_is_not_given(operation: Operation) -> None:
    body = ASKED[operation]
    for name in body:
        assert key({**body, name: None}, operation) == key(without_part(body, (name,)), operation)


# --- the provider's defaults, and the bound of the output


def test_a_default_is_as_if_it_had_been_asked() -> None:
    by_default = target(default_config={"temperature": 0, "top_p": 1})

    assert key({"messages": []}, of=by_default) == key({"messages": [], "temperature": 0.0, "top_p": 1})
    assert key({"messages": [], "top_p": 0.5}, of=by_default) == key(
        {"messages": [], "temperature": 0, "top_p": 0.5}
    )


def test_null_takes_a_default_away() -> None:
    assert key({"temperature": None}, of=target(default_config={"temperature": 0})) == key({})


def test_embeddings_have_no_defaults() -> None:
    by_default = target(default_config={"temperature": 0})

    assert key(ASKED[EMBEDDING], EMBEDDING, of=by_default) == key(ASKED[EMBEDDING], EMBEDDING)


@pytest.mark.parametrize("operation", [CHAT, COMPLETION])
def test_both_names_of_the_outputs_bound_are_one(operation: Operation) -> None:
    older, newer = {"max_tokens": 9}, {"max_completion_tokens": 9}
    by_default = target(default_config={"max_tokens": 500})

    assert key(older, operation) == key(newer, operation) != key({}, operation)
    assert key(newer, operation, of=by_default) == key(older, operation)
    assert key({}, operation, of=by_default) == key({"max_completion_tokens": 500}, operation)


# --- whose, and of whom


@pytest.mark.parametrize(
    "other",
    [
        at(provider="other"),
        at(base_url="https://other.example/v1"),
        at(type=ProviderType.ANTHROPIC),
        replace(target(), upstream_model="gpt-4o-mini"),
    ],
    ids=["provider", "base_url", "dialect", "upstream model"],
)
def test_another_model_has_other_keys(other: Target) -> None:
    assert key({}, of=other) != key({})


@pytest.mark.parametrize(
    "same",
    [
        replace(target(), public_model="smart", model_id=2),
        at(api_key=Secret("new"), headers={"openai-project": "p"}),
        target(price=Price(Rate(Decimal(1)), Rate(Decimal(2)))),
        target(context_window=10, max_output=5),
    ],
    ids=["name", "credentials", "price", "facts"],
)
def test_what_staff_call_it_or_pay_for_it_does_not_matter(same: Target) -> None:
    assert key({}, of=same) == key({})


def test_another_operation_has_other_keys() -> None:
    assert len({key({"input": "a"}, operation) for operation in OPERATIONS}) == len(OPERATIONS)


# --- all of it at once


NUMBERS = (None, 0, 0.0, 1, 1.0, 0.5, True)
TEXTS = (None, "a", "b", "1")
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system"]), "content": st.sampled_from(["a", "b", None])},
        optional={"name": st.sampled_from(["a", "b"])},
    ),
    min_size=1,
    max_size=2,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "messages": MESSAGES,
    **{name: st.sampled_from(NUMBERS) for name in ("temperature", "top_p", "seed", "n")},
    **{name: st.sampled_from((None, 1, 1.0, 2)) for name in ("max_tokens", "max_completion_tokens")},
    **{name: st.sampled_from(TEXTS) for name in ("reasoning_effort", "stop", "user")},
    "stream": st.booleans(),
    "metadata": st.sampled_from((None, {"a": "b"}, {})),
    "tools": st.sampled_from((None, [], [TOOL], [TOOL, TOOL])),
}
BODIES = st.fixed_dictionaries({}, optional=FIELDS)
DEFAULTS = st.fixed_dictionaries(
    {}, optional={name: FIELDS[name] for name in ("temperature", "max_tokens", "max_completion_tokens")}
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two requests that differ in little, or in nothing that matters."""
    one = draw(BODIES), draw(DEFAULTS), draw(st.integers(1, 2))
    if draw(st.booleans()):
        return one, (turned(one[0]), turned(one[1]), one[2])
    other = {**one[0], **draw(st.fixed_dictionaries({}, optional=FIELDS))}
    return one, (other, draw(st.just(one[1]) | DEFAULTS), draw(st.integers(1, 2)))


def sent(body: dict[str, Any], defaults: dict[str, Any]) -> str:
    """What the upstream is told that could change its answer, told apart as JSON tells it."""
    made = orjson.loads(request_bytes(target(default_config=defaults), CHAT, body, stream=False))
    said = {name: value for name, value in made.items() if value is not None and name not in BESIDE}
    return repr(_sorted(said))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((name, _sorted(one)) for name, one in value.items())
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    return value if isinstance(value, bool | str | None) else float(value)


@settings(deadline=None)
@given(pairs())
def test_keys_are_equal_if_and_only_if_the_upstream_is_asked_the_same_for_the_same_people(
    pair: tuple[Any, Any],
) -> None:
    (one, one_defaults, one_project), (other, other_defaults, other_project) = pair

    keys = [
        key(body, scope=f"project {project}", of=target(default_config=defaults))
        for body, defaults, project in (pair[0], pair[1])
    ]
    same = sent(one, one_defaults) == sent(other, other_defaults) and one_project == other_project
    assert (keys[0] == keys[1]) is same


def test_a_key_stays_what_it_is() -> None:
    """Another format forgets all that users have stored: raise FORMAT, and say so in the CHANGELOG."""
    assert {operation: key(ASKED[operation], operation) for operation in OPERATIONS} == {
        CHAT: "23d332deac65200517fed6701153572c62fbbf3b291c59ba0afdcb8d1208af4f",
        COMPLETION: "c05acd779a94d87d2cec6304c05e1b52f94eff9820fdb3792d42e6df0b7d066f",
        EMBEDDING: "6296eca7dc7cd202aaf6a1f43fe7b9b17366e2f22607ee3ba200dc52a76efaa2",
    }
