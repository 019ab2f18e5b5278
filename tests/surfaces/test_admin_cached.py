"""The admin's pages of cached answers: found, read, pinned, asked anew and purged; never edited."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from completions.cache import index
from completions.models import CachedResponse
from tests.completions.calls import make_call
from tests.completions.kept import HOUR, found, kept, rows, store
from tests.factories import make_key, make_project, make_provider, make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
LIST = "/admin/completions/cachedresponse/"
PURGE = f"{LIST}purge/"


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


@pytest.fixture(autouse=True)
def _nothing_is_written_by_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)
    yield
    index.forget()


def sign_in(client: Client, *permissions: str) -> None:
    user = make_staff("clerk")
    user.is_superuser = False
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user, backend=BACKEND)


def cached(
    key: str = "k", *, project: str = "web", with_content: bool = True, **facts: Any
) -> CachedResponse:
    """An answer in the hot store, with its row; `facts` of the row are changed afterwards."""
    owner = make_project(project) if not rows_of(project) else rows_of(project)[0]
    one = kept(owner, key)
    one.with_content = with_content
    store(one)
    index.flush()
    CachedResponse.objects.filter(key=key).update(**facts)
    return CachedResponse.objects.get(key=key)


def rows_of(slug: str) -> Any:
    from completions.models import Project

    return Project.objects.filter(slug=slug)


def listed(browser: Client, **query: str) -> list[str]:
    return [row.key for row in browser.get(LIST, query).context["cl"].result_list]


def page(browser: Client, row: CachedResponse) -> Any:
    answer = browser.get(reverse("admin:completions_cachedresponse_change", args=[row.pk]))
    assert answer.status_code == 200
    return answer


def words(answer: Any) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", answer.text))


def act(browser: Client, row: CachedResponse, name: str) -> str:
    """A button of a row's page: asks first, then does it. What was said of it."""
    url = reverse(f"admin:completions_cachedresponse_{name}", args=[row.pk])
    assert 'method="post"' in browser.get(url).text
    return words(browser.post(url, follow=True))


def selected(action: str, *chosen: CachedResponse, **fields: str) -> dict[str, Any]:
    return {"action": action, "_selected_action": [str(row.pk) for row in chosen], **fields}


class TestTheList:
    def test_shows_what_was_asked_what_it_saved_and_how_it_stands(self, ada: Client) -> None:
        now = timezone.now()
        cached(
            hits=1234, saved_nano_usd=5_678_000, size_bytes=2048, created_at=now - timedelta(hours=3),
            expires_at=now + timedelta(hours=5, minutes=1),
        )  # fmt: skip

        told = words(ada.get(LIST))
        assert "question k smart acme Web Fresh 1,234 $0.00568 3 hours in 5 hours 2.0 KB" in told.replace(
            "\xa0", " "
        )

    def test_tells_fresh_stale_expired_and_pinned_apart(self, ada: Client) -> None:
        past, future = timezone.now() - timedelta(hours=1), timezone.now() + timedelta(hours=1)
        cached("fresh")
        cached("stale", expires_at=past, stale_until=future)
        cached("expired", expires_at=past, stale_until=past)
        cached("pinned", expires_at=past, stale_until=past, pinned=True)

        for state in ("fresh", "stale", "expired", "pinned"):
            assert listed(ada, state=state) == [state]
            assert state.capitalize() in words(ada.get(LIST))
        assert len(listed(ada, state="nonsense")) == 4

    def test_is_filtered_by_project_model_provider_and_kind(self, ada: Client) -> None:
        make_provider(slug="other", models=({"name": "x", "public_name": "small"},))
        cached("a")
        cached("b", project="app", model="small", provider_slug="other", operation="embedding")
        project = rows()["b"].project_id

        assert listed(ada, project__id__exact=str(project)) == ["b"]
        assert listed(ada, model="small") == ["b"]
        assert listed(ada, provider="other") == ["b"]
        assert listed(ada, operation="embedding") == ["b"]
        assert "small" in ada.get(LIST).text

    def test_is_searched_by_first_words_and_by_the_beginning_of_a_key(self, ada: Client) -> None:
        cached("abcdef0123")
        cached("abcdef9999", first_words="What is the capital of France?")

        assert listed(ada, q="CAPITAL of") == ["abcdef9999"]
        assert listed(ada, q="abcdef01") == ["abcdef0123"]
        assert set(listed(ada, q="abcdef")) == {"abcdef0123", "abcdef9999"}
        assert listed(ada, q="abcdef8") == []

    def test_counts_nothing_reads_no_bodies_and_its_queries_do_not_grow(self, ada: Client) -> None:
        def queries() -> list[str]:
            with CaptureQueriesContext(
                connection,
            ) as captured:
                assert ada.get(LIST).status_code == 200
            return [query["sql"] for query in captured]

        cached("first")
        few = queries()
        for number in range(12):
            cached(f"k{number}")
        many = queries()
        assert len(many) == len(few)
        of_rows = [sql for sql in many if 'FROM "completions_cachedresponse"' in sql]
        assert not [sql for sql in of_rows if "COUNT(" in sql or '"response"' in sql or "DISTINCT" in sql]

    def test_leads_to_the_page_for_purging(self, ada: Client) -> None:
        url = reverse("admin:completions_cachedresponse_purge_some")

        assert url in ada.get(LIST).text
        assert ada.get(url)["Location"] == PURGE


class TestThePage:
    def test_shows_question_and_answer_as_text_and_never_as_html(self, ada: Client) -> None:
        call = {"function": {"name": "find", "arguments": '{"q": "<b>"}'}}
        asked = {"messages": [{"role": "user", "content": "<script>alert(1)</script>"}], "temperature": 0}
        message = {"role": "assistant", "content": "Look.", "tool_calls": [call]}
        row = cached(request=json.dumps(asked), response=json.dumps({"choices": [{"message": message}]}))

        text = page(ada, row).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "<script>alert(1)" not in text
        assert "<code>find</code>" in text
        assert "temperature 0" in words(page(ada, row))
        assert "Look." in text

    @pytest.mark.parametrize("vector", [[0.5, -0.25, 0.125], "AAAAPwAAgL4AAAA+"])
    def test_shows_of_an_embedding_its_input_and_dimensions(self, ada: Client, vector: Any) -> None:
        asked, body = {"input": "hiking boots"}, {"data": [{"embedding": vector}]}
        row = cached(operation="embedding", request=json.dumps(asked), response=json.dumps(body))

        told = words(page(ada, row))
        assert "input hiking boots" in told
        assert "vector, 3 dimensions (the answer) 0.5, -0.25, 0.125, …" in told

    @pytest.mark.parametrize("stored", ["nonsense", "[]", "null", '{"choices": [1, {}], "messages": [1]}'])
    def test_opens_whatever_is_stored(self, ada: Client, stored: str) -> None:
        row = cached(request=stored, response=stored, facts=stored)

        assert "Question and answer" in page(ada, row).text

    def test_names_the_call_that_brought_it_and_those_that_were_given_it(self, ada: Client) -> None:
        row = cached()
        key, _ = make_key(row.project, "checkout")
        brought = make_call(cache="MISS")
        CachedResponse.objects.update(completion_id=brought.pk, api_key=key, end_user="kim")
        hit = make_call(cache="HIT", cached_from=brought.pk, saved_nano_usd=75_000, end_user="lee")
        make_call(cache="HIT", cached_from=row.completion_id)  # another's

        answer = page(ada, row)
        assert reverse("admin:completions_completion_change", args=[brought.pk]) in answer.text
        assert reverse("admin:completions_completion_change", args=[hit.pk]) in answer.text
        assert len(answer.context["given"]) == 1
        assert "HIT saved $0.000075 OK Web - lee" in words(answer)
        assert f"with the key checkout (…{key.last4}) for kim" in words(answer)

    def test_says_so_where_the_call_is_pruned_and_the_content_not_kept(self, ada: Client) -> None:
        told = words(page(ada, cached(with_content=False)))

        assert "A call that is no longer in the ledger" in told
        assert "Not kept: the project or the key keeps no content" in told

    @pytest.mark.parametrize(
        ("project", "says"),
        [
            ({}, "The whole project"),
            ({"cache_group": "shop"}, "Projects of the group shop"),
            ({"cache_scope": "key"}, "The member who asked alone"),
        ],
    )
    def test_says_to_whom_it_is_given(self, ada: Client, project: dict[str, str], says: str) -> None:
        row = cached()
        type(row.project).objects.update(**project)

        assert says in words(page(ada, row))

    def test_changes_nothing(self, ada: Client) -> None:
        row = cached()
        url = reverse("admin:completions_cachedresponse_change", args=[row.pk])
        assert ada.post(url, {"model": "other"}).status_code == 403
        assert ada.get(f"{LIST}add/").status_code == 403
        assert ada.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert rows()["k"].model == "smart"


class TestWhoMay:
    def test_read_what_was_asked_and_answered_has_a_permission_of_its_own(self, client: Client) -> None:
        row = cached()
        sign_in(client, "view_cachedresponse")

        assert "question k" not in client.get(LIST).text
        assert "question k" not in page(client, row).text
        assert "answer of k" not in page(client, row).text
        assert listed(client, q="question") == []
        assert "Calls that were given it" not in page(client, row).text

    def test_only_look_changes_nothing(self, client: Client) -> None:
        row = cached()
        sign_in(client, "view_cachedresponse")

        for name in ("pin", "unpin", "refresh", "purge_this"):
            url = reverse(f"admin:completions_cachedresponse_{name}", args=[row.pk])
            assert (name, client.post(url).status_code) == (name, 403)
        assert client.post(PURGE, {"everything": "on"}).status_code == 403
        client.post(LIST, selected("purge_selected", row, confirmed="yes"))
        assert "Purge" not in words(client.get(LIST))
        assert (set(rows()), rows()["k"].pinned) == ({"k"}, False)

    def test_change_may_pin_and_delete_may_purge(self, client: Client) -> None:
        row = cached()
        sign_in(client, "view_cachedresponse", "change_cachedresponse")
        assert "Pinned:" in act(client, row, "pin")
        url = reverse("admin:completions_cachedresponse_purge_this", args=[row.pk])
        assert client.post(url).status_code == 403

    def test_see_nothing_at_all_sees_nothing(self, client: Client) -> None:
        row = cached()
        sign_in(client)

        assert client.get(LIST).status_code == 403
        assert (
            client.get(reverse("admin:completions_cachedresponse_change", args=[row.pk])).status_code == 403
        )
        assert LIST not in client.get("/admin/").text


class TestPins:
    def test_a_pinned_answer_stays_and_can_be_unpinned(self, ada: Client) -> None:
        row = cached(expires_at=timezone.now())
        assert "Pinned: it stays" in act(ada, row, "pin")
        assert rows()["k"].pinned
        told = words(page(ada, row))
        assert "Never, while it is pinned" in told
        assert "Unpin" in told

        assert "Unpinned." in act(ada, row, "unpin")
        assert not rows()["k"].pinned
        assert [entry.change_message for entry in LogEntry.objects.all()] == ["Unpinned.", "Pinned."]

    def test_an_answer_without_content_says_why_it_cannot_be(self, ada: Client) -> None:
        assert "keeps no content" in act(ada, cached(with_content=False), "pin")

    def test_many_are_pinned_at_once(self, ada: Client) -> None:
        chosen = [cached("a"), cached("b"), cached("bare", with_content=False)]
        told = words(ada.post(LIST, selected("pin_selected", *chosen), follow=True))

        assert "Pinned 2 answers." in told
        assert "keeps no content" in told
        assert {key for key, row in rows().items() if row.pinned} == {"a", "b"}
        assert "Unpinned 2 answers." in words(
            ada.post(LIST, selected("unpin_selected", *chosen[:2]), follow=True)
        )

    def test_the_log_holds_nothing_of_what_was_asked(self, ada: Client) -> None:
        act(ada, cached(), "pin")

        assert (
            "question" not in f"{LogEntry.objects.get().object_repr}{LogEntry.objects.get().change_message}"
        )


class TestPurging:
    def test_one_goes_after_a_question(self, ada: Client) -> None:
        row = cached()
        cached("other")

        assert "Purged 1 cached answer." in act(ada, row, "purge_this")
        assert (set(rows()), found("k"), found("other") is None) == ({"other"}, None, False)
        assert LogEntry.objects.get().change_message == "Purged."

    def test_many_go_after_a_question(self, ada: Client) -> None:
        chosen = [cached("a"), cached("b")]
        cached("c")

        asked = ada.post(LIST, selected("purge_selected", *chosen))
        assert "2 cached answers" in asked.text
        assert len(rows()) == 3
        told = ada.post(LIST, selected("purge_selected", *chosen, confirmed="yes"), follow=True)
        assert "Purged 2 cached answers." in told.text
        assert rows().keys() == {"c"}

    def test_what_is_chosen_is_counted_before_it_goes(self, ada: Client) -> None:
        cached("a", hits=3, saved_nano_usd=5 * 10**9, size_bytes=1024, pinned=True)
        cached("b", model="small")
        cached("c", project="app")
        choice = {"project": "web", "model": "smart", "provider": ""}

        told = words(ada.get(PURGE, choice)).replace("\xa0", " ")
        assert "Project Web, model smart Answers 1 Of them pinned 1 Size 1.0 KB Hits 3 Saved $5.00" in told
        assert len(rows()) == 3
        assert (
            "Purged 1 cached answer: project Web, model smart." in ada.post(PURGE, choice, follow=True).text
        )
        assert rows().keys() == {"b", "c"}
        assert LogEntry.objects.get().object_repr == "Cached answers: project Web, model smart"

    def test_everything_goes_only_when_it_is_asked_for_by_name(self, ada: Client) -> None:
        cached("a")
        cached("b", project="app")
        nothing = {"project": "", "model": "", "provider": ""}

        assert "Choose a project, a model or a provider" in ada.post(PURGE, nothing).text
        assert "not both" in ada.post(PURGE, nothing | {"model": "smart", "everything": "on"}).text
        assert len(rows()) == 2
        assert "Purge 2 answers" in words(ada.get(PURGE, nothing | {"everything": "on"}))
        ada.post(PURGE, nothing | {"everything": "on"})
        assert rows() == {}

    def test_a_choice_that_fits_nothing_offers_nothing(self, ada: Client) -> None:
        cached()

        told = words(ada.get(PURGE, {"model": "none"}))
        assert "No answers are cached that fit." in told
        assert "Yes" not in told

    def test_an_unknown_project_is_refused(self, ada: Client) -> None:
        cached()

        assert "Select a valid choice" in ada.post(PURGE, {"project": "none"}).text
        assert len(rows()) == 1
