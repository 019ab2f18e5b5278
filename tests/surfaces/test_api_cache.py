"""GET and DELETE /api/cache/: what is cached of a project, and forgetting it."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache as django_cache
from rest_framework.test import APIClient

from completions.cache import index
from completions.models import CachedResponse, Project
from tests.completions.kept import HOUR, found, kept, rows, store
from tests.factories import make_project, make_staff
from tests.surfaces.api import assert_error, client_of

pytestmark = pytest.mark.django_db

URL = "/api/cache/"


@pytest.fixture(autouse=True)
def _nothing_is_written_by_itself(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(index, "FLUSH_SECONDS", HOUR)
    yield
    index.forget()


@pytest.fixture
def project() -> Project:
    """With three answers; another project has one."""
    mine = make_project("web")
    store(kept(mine, "a"), kept(mine, "b", public_model="small"), kept(mine, "c", provider="other"))
    store(kept(make_project("app"), "d"))
    index.flush()
    return mine


def staff(*permissions: str, members_of: Project | None = None) -> APIClient:
    """A session of staff with these permissions."""
    user = make_staff("clerk")
    user.is_superuser = False
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    if members_of is not None:
        members_of.members.add(user)
    client = APIClient()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def purge(client: APIClient, query: str = "") -> Any:
    response = client.delete(f"{URL}{query}")
    assert response.status_code == 200, response.content
    return response.json()


class TestWhatIsCached:
    def test_is_summed_up_for_the_callers_project(self, project: Project) -> None:
        CachedResponse.objects.filter(project=project).update(
            hits=2, saved_nano_usd=1_500_000_000, size_bytes=100
        )

        assert client_of(project).get(URL).json() == {
            "entries": 3,
            "bytes": 300,
            "hits": 6,
            "saved_usd": "4.5",
        }

    def test_is_nothing_at_first(self) -> None:
        assert client_of().get(URL).json() == {"entries": 0, "bytes": 0, "hits": 0, "saved_usd": "0"}

    def test_is_asked_of_the_database_now_and_then(
        self, project: Project, django_assert_num_queries: Any
    ) -> None:
        client = client_of(project)
        client.get(URL)
        CachedResponse.objects.all().delete()

        assert client.get(URL).json()["entries"] == 3
        django_cache.clear()
        assert client.get(URL).json()["entries"] == 0


class TestForgetting:
    @pytest.mark.parametrize(
        ("query", "purged", "left"),
        [
            ("", 3, {"d"}),
            ("?model=small", 1, {"a", "c", "d"}),
            ("?provider=other", 1, {"a", "b", "d"}),
            ("?provider=acme&model=smart", 1, {"b", "c", "d"}),
            ("?model=none", 0, {"a", "b", "c", "d"}),
            ("?project=web", 3, {"d"}),
        ],
    )
    def test_takes_what_fits_of_the_callers_project(
        self, project: Project, query: str, purged: int, left: set[str]
    ) -> None:
        assert purge(client_of(project), query) == {"purged": purged}
        assert rows().keys() == left
        assert {key for key in "abcd" if found(key)} == left

    def test_is_seen_in_the_sums_at_once(self, project: Project) -> None:
        client = client_of(project)
        client.get(URL)
        purge(client)

        assert client.get(URL).json()["entries"] == 0

    def test_is_open_to_a_members_session(self, project: Project) -> None:
        assert purge(staff(members_of=project)) == {"purged": 3}

    def test_of_another_project_is_for_staff_with_the_permission(self, project: Project) -> None:
        client = staff("delete_cachedresponse")

        assert purge(client, "?project=web") == {"purged": 3}
        assert rows().keys() == {"d"}
        assert_error(client.get(URL, {"project": "web"}), 403, "PERMISSION_DENIED")

    def test_of_a_project_that_is_not_there_is_told_to_staff(self, project: Project) -> None:
        body = assert_error(
            staff("delete_cachedresponse").delete(f"{URL}?project=none"), 400, "INVALID_REQUEST"
        )

        assert "project" in body["details"]


class TestRefusals:
    @pytest.mark.parametrize("slug", ["app", "none"])
    def test_a_key_cannot_name_another_project_whether_it_is_there_or_not(
        self, project: Project, slug: str
    ) -> None:
        for call in (client_of(project).delete, client_of(make_project(f"x-{slug}")).get):
            body = assert_error(call(f"{URL}?project={slug}"), 403, "PERMISSION_DENIED")
            assert "only staff" in body["message"]
        assert len(rows()) == 4

    def test_a_member_cannot_either(self, project: Project) -> None:
        assert_error(staff(members_of=project).delete(f"{URL}?project=app"), 403, "PERMISSION_DENIED")

    def test_staff_without_a_project_name_one(self, project: Project) -> None:
        assert_error(staff("delete_cachedresponse").delete(URL), 403, "PERMISSION_DENIED")

    @pytest.mark.parametrize("query", ["", "?project=web"])
    def test_without_a_key_there_is_nothing(self, project: Project, query: str) -> None:
        assert_error(APIClient().get(f"{URL}{query}"), 401, "AUTHENTICATION_FAILED")
        assert_error(APIClient().delete(f"{URL}{query}"), 401, "AUTHENTICATION_FAILED")

    @pytest.mark.parametrize(("query", "field"), [("?modle=x", "modle"), ("?user=kim", "user")])
    def test_a_wrong_parameter_is_named_and_forgets_nothing(
        self, project: Project, query: str, field: str
    ) -> None:
        body = assert_error(client_of(project).delete(f"{URL}{query}"), 400, "INVALID_REQUEST")

        assert field in body["details"]
        assert len(rows()) == 4

    def test_other_methods_are_not_allowed(self, project: Project) -> None:
        assert_error(client_of(project).post(URL, {}), 405, "METHOD_NOT_ALLOWED")
