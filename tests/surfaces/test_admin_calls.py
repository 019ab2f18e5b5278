"""The admin's pages for who asks and what came back: projects, keys and the read-only ledger."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from completions import keys
from completions.errors import AuthenticationError
from completions.ids import first_id
from completions.ledger import new_id
from completions.models import ApiKey, Completion, Project, State
from tests.factories import make_key, make_project, make_provider, make_staff

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
KEY = re.compile(r"sk-llmhub-[A-Za-z0-9]{12}-[A-Za-z0-9_-]{43}")
LIST = "/admin/completions/completion/"
NO_EXPIRY = {"expires_at_0": "", "expires_at_1": ""}
NO_BUDGETS = {"budgets-TOTAL_FORMS": 0, "budgets-INITIAL_FORMS": 0}  # the form of an empty inline


@pytest.fixture
def ada(client: Client) -> Client:
    """A browser signed in as a superuser."""
    client.force_login(make_staff(), backend=BACKEND)
    return client


def made_in_the_admin(browser: Client, name: str = "checkout") -> tuple[Any, str]:
    project, _ = Project.objects.get_or_create(slug="web", name="Web")
    answer = browser.post(
        "/admin/completions/apikey/add/", {"project": project.pk, "name": name, **NO_EXPIRY}
    )
    found = KEY.search(answer.text)
    assert found is not None
    return answer, found[0]


def make_call(moment: datetime | None = None, **fields: Any) -> Completion:
    values: dict[str, Any] = {
        "id": first_id(moment) if moment else new_id(), "request_id": "r1", "surface": "api",
        "state": State.OK, "requested_model": "gpt-4o", "created_at": moment or timezone.now(),
        "prompt_tokens": 10, "completion_tokens": 5, "cost_nano_usd": 12_345,
    }  # fmt: skip
    project, _ = Project.objects.get_or_create(slug="web", name="Web")
    return Completion.objects.create(project=project, **(values | fields))


def call_url(call: Completion) -> str:
    return reverse("admin:completions_completion_change", args=[call.pk])


def test_a_new_key_is_shown_in_the_answer_alone_and_works(ada: Client) -> None:
    answer, full_key = made_in_the_admin(ada)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert keys.authenticate(full_key).project == "web"
    assert full_key not in answer.request["PATH_INFO"] + answer.request["QUERY_STRING"]
    assert full_key not in str(answer.cookies) + str(ada.cookies)
    assert not any(full_key in str(session.get_decoded()) for session in Session.objects.all())


def test_a_new_key_is_never_shown_again(ada: Client) -> None:
    _, full_key = made_in_the_admin(ada)
    row = ApiKey.objects.get()
    _, secret = keys.parse(full_key)
    for url in (
        "/admin/", "/admin/completions/apikey/", f"/admin/completions/apikey/{row.pk}/change/",
        f"/admin/completions/apikey/{row.pk}/history/",
        f"/admin/completions/project/{row.project_id}/change/",
    ):  # fmt: skip
        text = ada.get(url).text
        assert secret not in text, url
        assert row.secret_hmac not in text, url
    assert f"…{row.last4}" in ada.get("/admin/completions/apikey/").text
    assert not any(secret in f"{entry.change_message}{entry.object_repr}" for entry in LogEntry.objects.all())


def test_two_keys_of_a_project_cannot_have_one_name(ada: Client) -> None:
    made_in_the_admin(ada)
    project = Project.objects.get()
    answer = ada.post(
        "/admin/completions/apikey/add/", {"project": project.pk, "name": "checkout", **NO_EXPIRY}
    )
    assert answer.status_code == 200
    assert KEY.search(answer.text) is None
    assert ApiKey.objects.count() == 1


def test_a_key_keeps_its_project_and_secret_when_it_is_renamed(ada: Client) -> None:
    row, full_key = make_key()
    other = make_project("other")
    url = reverse("admin:completions_apikey_change", args=[row.pk])
    assert (
        ada.post(url, {"name": "renamed", "project": other.pk, **NO_EXPIRY, **NO_BUDGETS}).status_code == 302
    )
    assert ApiKey.objects.get().name == "renamed"
    assert keys.authenticate(full_key).project == "web"


def test_revoking_asks_first_and_then_refuses_the_key(ada: Client) -> None:
    row, full_key = make_key()
    url = reverse("admin:completions_apikey_revoke", args=[row.pk])
    assert 'method="post"' in ada.get(url).text
    assert keys.authenticate(full_key).api_key_id == row.pk
    assert "is revoked" in ada.post(url, follow=True).text
    with pytest.raises(AuthenticationError):
        keys.authenticate(full_key)
    assert "Revoked" in ada.get("/admin/completions/apikey/").text


def test_keys_are_never_deleted_and_many_can_be_revoked_at_once(ada: Client) -> None:
    row, _ = make_key()
    assert ada.post(f"/admin/completions/apikey/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    ada.post(
        "/admin/completions/apikey/",
        {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"},
    )
    assert ApiKey.objects.filter(pk=row.pk, revoked_at=None).exists()
    ada.post("/admin/completions/apikey/", {"action": "revoke_selected", "_selected_action": [row.pk]})
    assert ApiKey.objects.get().revoked_at is not None


def test_the_state_of_a_key_is_shown_and_can_be_filtered(ada: Client) -> None:
    project = make_project()
    make_key(project, "living")
    make_key(project, "outlived", expires_at=timezone.now() - timedelta(days=1))
    keys.revoke(make_key(project, "withdrawn")[0])
    for state, name in (("active", "living"), ("expired", "outlived"), ("revoked", "withdrawn")):
        shown = ada.get(f"/admin/completions/apikey/?state={state}").context["cl"].result_list
        assert [row.name for row in shown] == [name]


def test_a_project_goes_with_its_keys_until_it_has_paid_for_a_call(ada: Client) -> None:
    unused = make_key(make_project("unused"))[0].project
    ada.post(f"/admin/completions/project/{unused.pk}/delete/", {"post": "yes"})
    assert not Project.objects.filter(slug="unused").exists()
    call = make_call()
    ada.post(f"/admin/completions/project/{call.project_id}/delete/", {"post": "yes"})
    assert Project.objects.filter(pk=call.project_id).exists()


def test_completions_are_read_only(ada: Client) -> None:
    call = make_call()
    assert ada.get("/admin/completions/completion/add/").status_code == 403
    assert ada.post(call_url(call), {"state": "running"}).status_code == 403
    assert ada.post(f"/admin/completions/completion/{call.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Completion.objects.get().state == State.OK


def test_a_cost_is_shown_exactly_and_an_unknown_price_is_marked(ada: Client) -> None:
    priced, unpriced = make_call(), make_call(cost_nano_usd=None)
    failed = make_call(
        cost_nano_usd=None, prompt_tokens=None, completion_tokens=None, state=State.UPSTREAM_ERROR
    )
    assert "$0.000012345" in ada.get(call_url(priced)).text
    assert "Unpriced" in ada.get(call_url(unpriced)).text
    assert "Unpriced" not in ada.get(call_url(failed)).text
    assert ada.get(LIST).text.count("Unpriced") == 1


def test_a_call_is_found_by_its_exact_id_or_request_id_only(ada: Client) -> None:
    call = make_call(request_id="order-4711")
    make_call(request_id="order-4712")
    for term in (str(call.pk), call.pk.hex, "order-4711"):
        assert [row.pk for row in ada.get(LIST, {"q": term}).context["cl"].result_list] == [call.pk]
    assert list(ada.get(LIST, {"q": "order-47"}).context["cl"].result_list) == []


def test_calls_are_found_by_period_and_by_days(ada: Client) -> None:
    now = timezone.now()
    fresh, old = make_call(now - timedelta(minutes=5)), make_call(datetime(2026, 3, 10, 23, 59, tzinfo=UTC))

    def shown(**query: str) -> list[Any]:
        return [row.pk for row in ada.get(LIST, query).context["cl"].result_list]

    assert shown(period="1h") == [fresh.pk]
    assert shown(**{"from": "2026-03-10", "to": "2026-03-10"}) == [old.pk]
    assert shown(**{"from": "2026-03-11", "to": "2026-03-12"}) == []
    assert shown(**{"from": "no day"}) == [fresh.pk, old.pk]


def test_the_list_of_calls_counts_nothing_and_its_queries_do_not_grow(ada: Client) -> None:
    provider = make_provider()
    row, _ = make_key(make_project("web"))

    def queries() -> list[str]:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert ada.get(LIST).status_code == 200
        return [query["sql"] for query in captured]

    make_call(provider=provider, api_key=row)
    few = queries()
    for _ in range(20):
        make_call(provider=provider, api_key=row)
    many = queries()
    assert len(many) == len(few)
    assert not [sql for sql in many if "COUNT(" in sql and "completions_completion" in sql]


def test_the_dashboard_adds_up_the_last_day(ada: Client) -> None:
    make_provider()
    make_call()
    make_call(state=State.TIMEOUT_IDLE, cost_nano_usd=None)
    make_call(timezone.now() - timedelta(days=2), cost_nano_usd=10**12)
    answer = ada.get("/admin/")
    day = answer.context["day"]
    assert (day.calls, day.failed, day.tokens, day.cost_nano_usd, day.unpriced) == (2, 1, 30, 12_345, 1)
    assert "<title> Dashboard | llmhub</title>" in answer.text
    assert 'id="site-name"' in answer.text


def test_the_dashboard_says_what_the_cache_saved_and_calls_no_shared_answer_a_failure(ada: Client) -> None:
    make_call(state=State.COALESCED, cache="COALESCED", cost_nano_usd=0, saved_nano_usd=12_345)
    answer = ada.get("/admin/")
    assert (answer.context["day"].failed, answer.context["day"].saved_nano_usd) == (0, 12_345)
    assert "$0.0000123 saved by the cache" in answer.text


def test_an_empty_hub_says_what_to_do_next(ada: Client) -> None:
    text = ada.get("/admin/").text
    assert "What to do next" in text
    assert reverse("admin:providers_llmprovider_add") in text


def test_a_clerk_sees_only_what_the_clerk_may(client: Client) -> None:
    clerk = make_staff("clerk")
    clerk.is_superuser = False
    clerk.save()
    client.force_login(clerk, backend=BACKEND)
    make_provider(slug="hidden", name="Hidden upstream")
    make_call(requested_model="hidden-model")
    text = client.get("/admin/").text
    assert "Hidden upstream" not in text
    assert "hidden-model" not in text
    assert "/admin/providers/llmprovider/" not in text
