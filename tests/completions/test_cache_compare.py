"""Why two requests have one key, or two; and why an equal one was not answered from the cache."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from completions.cache.compare import Past, Request, Story, differences, likeness, reasons, same
from completions.models import State
from providers.types import CacheMode, Operation

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def request(
    *, scope: str = "project 1", provider: str = "acme", model: str = "smart", **asked: Any
) -> Request:
    body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0} | asked
    return Request(scope, Operation.CHAT, provider, model, body)


def says(content: Any, *more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}, *more]
    }


class TestDifferences:
    def test_there_are_none_between_equal_requests(self) -> None:
        assert differences(request(), request()) == []
        assert same(request(), request()) == [
            "shared by", "operation", "provider", "model", "messages", "temperature",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"scope": "project 2"}, "shared by"),
            ({"provider": "other"}, "provider"),
            ({"model": "other"}, "model"),
            ({"temperature": 1}, "temperature"),
            ({"seed": 7}, "seed"),
            ({"tools": [{"type": "function"}]}, "tools"),
        ],
    )
    def test_each_part_of_the_key_is_named(self, change: dict[str, Any], name: str) -> None:
        (found,) = differences(request(), request(**change))

        assert (found.name, found.at) == (name, name)
        assert name not in same(request(), request(**change))

    def test_what_only_one_of_them_has_is_empty_in_the_other(self) -> None:
        (found,) = differences(request(seed=7), request())

        assert (found.one.changed, found.other.changed) == ("7", "")

    def test_what_kind_of_call_it_was_comes_first(self) -> None:
        one, other = request(seed=1), request(seed=2, model="other")._replace(operation=Operation.COMPLETION)

        assert [found.name for found in differences(one, other)] == ["operation", "model", "seed"]

    @pytest.mark.parametrize(
        ("one", "other", "at"),
        [
            (says("a b"), says("a c"), "messages[1].content, character 3"),
            (says("a"), says("a", {"role": "user", "content": "b"}), "messages[2]"),
            (says([{"text": "x"}]), says([{"text": "y"}]), "messages[1].content[0].text"),
            (says("a"), says([{"type": "text", "text": "a"}]), "messages[1].content"),
            ({"logit_bias": {"5": 1}}, {"logit_bias": {"5": 2}}, "logit_bias.5"),
            ({"stop": ["x"]}, {"stop": ["x", "y"]}, "stop[1]"),
        ],
    )  # fmt: skip
    def test_the_first_place_inside_is_pointed_out(self, one: Any, other: Any, at: str) -> None:
        (found,) = differences(request(**one), request(**other))

        assert found.at == at

    def test_a_text_shows_the_words_that_differ_and_what_surrounds_them(self) -> None:
        text = "It is {} now. " + "Be brief. " * 20
        (found,) = differences(request(**says(text.format("08:14"))), request(**says(text.format("08:15"))))

        assert (found.one.before, found.one.changed) == ("It is ", "08:14")
        assert (found.other.before, found.other.changed) == ("It is ", "08:15")
        assert found.one.after == found.other.after
        assert found.one.after.startswith(" now. Be brief.")
        assert found.one.after.endswith("…")

    def test_a_text_that_goes_on_shows_what_is_more(self) -> None:
        (found,) = differences(request(**says("Hello")), request(**says("Hello you")))

        assert (found.one.before + found.one.changed, found.other.changed) == ("Hello", "Hello you")

    def test_a_very_long_difference_is_cut(self) -> None:
        (found,) = differences(request(**says("x" * 5000)), request(**says("y" * 5000)))

        assert len(found.one.changed) < 500
        assert found.one.changed.endswith("… 4,600 more characters")

    @pytest.mark.parametrize(
        ("one", "other", "changes"),
        [
            ("Today is 2026-11-24. Hi", "Today is 2026-11-25. Hi", True),
            ("Order 17, please", "Order 18, please", True),
            ("Trace 9f8e7d6c5b4a now", "Trace 1a2b3c4d5e6f now", True),
            ("Say cat now", "Say dog now", False),
            ("7", "8", False),  # all of the text: that is the question
        ],
    )
    def test_what_looks_like_a_time_or_an_id_is_told_apart(self, one: str, other: str, changes: bool) -> None:
        (found,) = differences(request(**says(one)), request(**says(other)))

        assert found.changes is changes

    def test_a_request_whose_content_is_gone_is_compared_by_the_rest(self) -> None:
        bare = request()._replace(asked=None)

        assert differences(bare, bare._replace(model="other"))[0].name == "model"


class TestLikeness:
    def test_is_one_for_the_same_and_less_for_all_else(self) -> None:
        asked = request().asked or {}

        assert likeness(asked, asked) == 1
        assert likeness(asked, asked | {"temperature": 1}) < 1

    def test_is_greater_the_more_is_said_alike(self) -> None:
        mine = says("What is the weather in Paris today?")
        near, far = says("What is the weather in Paris now?"), says("Bake bread.")

        assert likeness(mine, near) > likeness(mine, far) > 0


PAST = Past("MISS", State.OK, "stop", False, False, NOON, NOON + timedelta(seconds=2))
STORY = Story(
    earlier=PAST,
    later=replace(PAST, created_at=NOON + HOUR / 2, ended_at=NOON + HOUR / 2),
    operation=Operation.CHAT,
    deterministic=True,
    mode=CacheMode.DEFAULT,
    ttl=HOUR,
    rebuilt=True,
)


def told(story: Story) -> str:
    """The one reason there is."""
    (reason,) = reasons(story)
    return reason


class TestReasons:
    @pytest.mark.parametrize("word", ["HIT", "STALE", "SEMANTIC", "COALESCED"])
    def test_there_is_none_where_the_cache_answered(self, word: str) -> None:
        assert reasons(replace(STORY, later=replace(PAST, cache=word))) == []

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"mode": CacheMode.OFF}, "has it switched off"),
            ({"deterministic": False}, "Send temperature 0 or a seed"),
            ({}, "the request said so (Cache-Control: no-store"),
            ({"mode": CacheMode.ON, "deterministic": False}, "the request said so"),
        ],
    )
    def test_a_call_that_did_not_ask_is_told_why(self, changes: dict[str, Any], says: str) -> None:
        later = replace(STORY.later, cache="")

        assert says in told(replace(STORY, later=later, **changes))

    @pytest.mark.parametrize(
        ("earlier", "says"),
        [
            ({"state": State.RUNNING, "ended_at": None}, "was still under way"),
            ({"ended_at": NOON + HOUR}, "was still under way"),
            ({"state": State.UPSTREAM_ERROR}, "it ended as “Upstream error”"),
            ({"state": State.CLIENT_GONE}, "it ended as “Client gone”"),
            ({"cache": ""}, "did not ask the cache"),
            ({"finish_reason": "length"}, "it ended with “length”"),
            ({"finish_reason": ""}, "it ended with no reason given"),
            ({"anomaly": True}, "made no sense"),
        ],
    )
    def test_an_earlier_answer_that_was_not_kept_is_told_of(self, earlier: dict[str, Any], says: str) -> None:
        assert says in told(replace(STORY, earlier=replace(PAST, **earlier)))

    def test_an_embedding_needs_no_reason_to_end(self) -> None:
        earlier = replace(PAST, finish_reason="")

        assert len(reasons(replace(STORY, earlier=earlier, operation=Operation.EMBEDDING))) == 3

    def test_a_stream_that_is_not_put_together_is_told_of(self) -> None:
        story = replace(STORY, earlier=replace(PAST, stream=True), rebuilt=False)

        assert "log probabilities" in told(story)

    def test_an_answer_whose_time_was_over_says_how_long_it_was_given(self) -> None:
        later = replace(STORY.later, created_at=NOON + 50 * HOUR)

        assert "given for 1 hour, and the later call came 2 days after" in told(replace(STORY, later=later))

    def test_an_answer_that_was_a_hit_itself_may_have_ended_since(self) -> None:
        story = replace(STORY, earlier=replace(PAST, cache="HIT"))

        assert any("purged or erased" in reason for reason in reasons(story))

    def test_where_nothing_is_known_what_may_be_is_named(self) -> None:
        found = reasons(STORY)

        assert len(found) == 3
        assert "no-cache" in found[0]
        assert "purged" in found[1]
