"""“Why was this a miss?”: two calls of a hub compared, and what the pages of calls say of the cache."""

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from completions.cache import index
from completions.cache.retold import retold
from completions.models import CachedResponse, Completion, CompletionContent
from tests.factories import make_key, make_project, make_staff
from tests.surfaces import v1 as shared
from tests.surfaces.v1 import CHAT, EMBEDDINGS, MODEL, V1, cost

transactional_db, hub, v1 = shared.transactional_db, shared.hub, shared.v1

BACKEND = "django.contrib.auth.backends.ModelBackend"
LIST = "/admin/completions/completion/"
COMPARE = f"{LIST}compare/"
VECTOR = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}


@pytest.fixture
def ada(v1: V1) -> Iterator[Client]:
    """A browser signed in as a superuser."""
    browser, user = Client(), make_staff()
    browser.force_login(user, backend=BACKEND)
    yield browser
    user.delete()


@pytest.fixture
def clerk(v1: V1) -> Iterator[Client]:
    """A browser signed in as staff who may look at calls, but not read them."""
    browser, user = Client(), make_staff("clerk")
    user.is_superuser = False
    user.save()
    user.user_permissions.add(Permission.objects.get(codename="view_completion"))
    browser.force_login(user, backend=BACKEND)
    yield browser
    user.delete()


def words(answer: Any) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", answer.text)))


def asked(v1: V1, text: str = "Hello", **fields: Any) -> Completion:
    """The row of a call that asks this."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "temperature": 0}
    v1.chat(**(body | fields))
    return v1.rows()[0]


def compared(browser: Client, one: Completion, other: Completion | None = None) -> Any:
    query = {"a": str(one.pk)} | ({"b": str(other.pk)} if other else {})
    answer = browser.get(COMPARE, query)
    assert answer.status_code == 200
    return answer


class TestTheKey:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"max_completion_tokens": 50, "top_p": 1.0, "user": "kim"},
            {"stream": True, "stream_options": {"include_usage": True}},
            {"metadata": {"a": "b"}, "stop": ["x"]},
        ],
    )
    def test_that_is_worked_out_of_a_call_is_the_one_its_answer_was_stored_under(
        self, v1: V1, fields: dict[str, Any]
    ) -> None:
        call = asked(v1, **fields)
        index.flush()

        assert retold(call).key == CachedResponse.objects.get().key

    def test_of_an_embedding_too(self, v1: V1) -> None:
        v1.upstream.refuses(200, VECTOR)
        v1.post(EMBEDDINGS, {"model": MODEL, "input": "boots"})
        index.flush()

        assert retold(v1.row()).key == CachedResponse.objects.get().key

    def test_of_a_hit_is_the_same(self, v1: V1) -> None:
        first, hit = asked(v1), asked(v1)

        assert hit.cache == "HIT"
        assert retold(hit).key == retold(first).key


class TestTwoKeys:
    def test_the_part_that_differs_is_shown_with_the_place_inside(self, v1: V1, ada: Client) -> None:
        one = asked(v1, "Today is 08:14. What is new?")
        other = asked(v1, "Today is 08:15. What is new?")

        answer = compared(ada, other, one)
        told = words(answer)
        assert "Two keys: the requests differ in 1 part messages ." in told
        assert "messages[0].content, character 14" in told
        assert "<mark>08:14.</mark>" in answer.text
        assert "<mark>08:15.</mark>" in answer.text
        assert "looks like a time, a number or an id" in told
        assert "Equal in both: shared by, kind, provider, model, temperature." in told

    def test_the_earlier_one_comes_first_however_they_are_named(self, v1: V1, ada: Client) -> None:
        one, other = asked(v1, "a"), asked(v1, "b")

        for answer in (compared(ada, one, other), compared(ada, other, one)):
            assert [side["call"] for side in answer.context["sides"]] == [one, other]

    def test_another_project_is_a_part_of_its_own(self, v1: V1, ada: Client) -> None:
        one = asked(v1)
        _, key = make_key(make_project("other"))
        v1.post(
            CHAT,
            {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "temperature": 0},
            key=key,
        )

        told = words(compared(ada, v1.rows()[0], one))
        assert "Two keys: the requests differ in 1 part Shared by" in told
        assert "Shared by Web Other" in told

    def test_what_was_asked_is_text_and_never_html(self, v1: V1, ada: Client) -> None:
        answer = compared(ada, asked(v1, "<b>a</b>"), asked(v1, "<script>1</script>"))

        assert "<script>1" not in answer.text
        assert "&lt;script&gt;1" in answer.text


class TestOneKey:
    def test_a_hit_is_no_miss(self, v1: V1, ada: Client) -> None:
        one, hit = asked(v1), asked(v1)

        assert "One key, and the later call was answered from the cache" in words(compared(ada, hit, one))

    def test_an_answer_that_was_cut_off_is_named_as_the_reason(self, v1: V1, ada: Client) -> None:
        v1.upstream.answers(finish_reason="length")
        told = words(compared(ada, asked(v1), asked(v1)))

        assert "One key, and still the later call was not answered from the cache" in told
        assert "it ended with “length”. Only whole answers are kept." in told

    def test_a_call_that_did_not_ask_the_cache_is_told_what_to_send(self, v1: V1, ada: Client) -> None:
        told = words(compared(ada, asked(v1, temperature=0.7), asked(v1, temperature=0.7)))

        assert "not asked" in told
        assert "Send temperature 0 or a seed" in told

    def test_where_nothing_is_certain_what_may_be_is_listed(self, v1: V1, ada: Client) -> None:
        one = asked(v1)
        v1.chat({"Cache-Control": "no-cache"}, temperature=0)

        assert "One of these: The later call wanted a fresh answer" in words(compared(ada, v1.rows()[0], one))


class TestThePartner:
    def test_is_the_earlier_call_that_is_most_like_it(self, v1: V1, ada: Client) -> None:
        near = asked(v1, "What is the weather in Paris now?")
        asked(v1, "Bake bread.")
        call = asked(v1, "What is the weather in Paris today?")

        assert [side["call"] for side in compared(ada, call).context["sides"]] == [near, call]

    def test_is_asked_for_where_there_is_none(self, v1: V1, ada: Client) -> None:
        assert "There is no earlier call of this project and model" in words(compared(ada, asked(v1)))

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ({"a": "nonsense"}, "There is no call nonsense."),
            ({"a": "01890000-0000-7000-8000-000000000000"}, "There is no call 01890000"),
            ({}, "Compare"),
        ],
    )
    def test_and_call_are_looked_up_by_id(self, ada: Client, query: dict[str, str], says: str) -> None:
        assert says in words(ada.get(COMPARE, query))

    def test_is_another_call(self, v1: V1, ada: Client) -> None:
        call = asked(v1)

        assert "one and the same call" in words(compared(ada, call, call))


class TestWhatIsNotKnown:
    def test_content_that_is_not_kept_is_said_so(self, v1: V1, ada: Client) -> None:
        one, other = asked(v1, "a"), asked(v1, "b")
        CompletionContent.objects.filter(pk=one.pk).delete()

        told = words(compared(ada, other, one))
        assert "As far as can be seen, nothing differs" in told
        assert "the content of the earlier call is not kept" in told

    def test_a_model_that_is_gone_is_said_so(self, v1: V1, ada: Client) -> None:
        one, other = asked(v1, "a"), asked(v1, "b")
        v1.set(v1.model, enabled=False)

        assert f"The model {MODEL} of upstream is gone or disabled" in words(compared(ada, other, one))

    def test_who_may_not_read_prompts_sees_none_here(self, v1: V1, clerk: Client) -> None:
        told = words(compared(clerk, asked(v1, "a secret"), asked(v1, "a riddle")))

        assert "secret" not in told
        assert "you may not read prompts and answers" in told


class TestPagesOfCalls:
    def test_the_list_shows_what_the_cache_did_and_saved(self, v1: V1, ada: Client) -> None:
        asked(v1)
        asked(v1)

        told = words(ada.get(LIST))
        assert "HIT saved $0.0000525" in told
        assert "MISS" in told

    @pytest.mark.parametrize(
        ("word", "found"),
        [("HIT", ["HIT"]), ("MISS", ["MISS"]), ("any", ["HIT"]), ("none", [""]), ("STALE", [])],
    )
    def test_the_list_is_filtered_by_it(self, v1: V1, ada: Client, word: str, found: list[str]) -> None:
        asked(v1)
        asked(v1)
        asked(v1, temperature=1)

        assert [row.cache for row in ada.get(LIST, {"cache": word}).context["cl"].result_list] == found

    def test_a_hit_leads_to_the_answer_and_to_the_call_that_brought_it(self, v1: V1, ada: Client) -> None:
        first, hit = asked(v1), asked(v1)
        index.flush()
        answer = CachedResponse.objects.get()

        page = ada.get(reverse("admin:completions_completion_change", args=[hit.pk]))
        assert reverse("admin:completions_completion_change", args=[first.pk]) in page.text
        assert reverse("admin:completions_cachedresponse_change", args=[answer.pk]) in page.text
        assert hit.saved_nano_usd == cost(9, 3)
        assert "Saved by the cache $0.0000525" in words(page)
        assert "Answered without an upstream call of its own: it cost nothing." in words(page)

    def test_a_miss_leads_to_the_reason(self, v1: V1, ada: Client) -> None:
        call = asked(v1)

        page = ada.get(reverse("admin:completions_completion_change", args=[call.pk]))
        assert f"{COMPARE}?a={call.pk}" in page.text
        assert "Why was this a miss?" in page.text

    @pytest.mark.parametrize("count", [1, 2])
    def test_two_selected_calls_are_compared(self, v1: V1, ada: Client, count: int) -> None:
        calls = [asked(v1, "a"), asked(v1, "b")]
        chosen = [str(call.pk) for call in calls[-count:]]

        answer = ada.post(LIST, {"action": "compare_selected", "_selected_action": chosen}, follow=True)
        assert [side["call"] for side in answer.context["sides"]] == calls

    def test_three_are_too_many(self, v1: V1, ada: Client) -> None:
        chosen = [str(asked(v1, text).pk) for text in "abc"]

        answer = ada.post(LIST, {"action": "compare_selected", "_selected_action": chosen}, follow=True)
        assert "Choose two calls" in answer.text

    def test_erasing_a_call_erases_its_cached_answer(self, v1: V1, ada: Client) -> None:
        call = asked(v1)
        index.flush()
        url = reverse("admin:completions_completion_erase_content", args=[call.pk])

        assert "So is its cached answer." in ada.post(url, follow=True).text
        assert not CachedResponse.objects.exists()
        assert asked(v1).cache == "MISS"
