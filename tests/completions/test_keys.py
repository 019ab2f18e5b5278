"""Callers' keys: shown once, stored as an HMAC, refused when revoked or expired."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from completions import keys
from completions.errors import AuthenticationError, InvalidRequestError, UnavailableError
from completions.models import ApiKey, HubSecret
from tests.factories import make_key, make_project

pytestmark = pytest.mark.django_db


def test_a_new_key_has_the_documented_form_and_names_its_project() -> None:
    project = make_project("shop")
    row, full_key = make_key(project)

    assert keys.KEY_PATTERN.match(full_key)
    caller = keys.authenticate(full_key)
    assert (caller.project, caller.project_id, caller.api_key_id) == ("shop", project.pk, row.pk)


def test_the_secret_of_a_key_is_nowhere_in_the_database() -> None:
    _, full_key = make_key()
    secret = keys.parse(full_key)[1]

    with connection.cursor() as cursor:
        cursor.execute("SELECT public_id, secret_hmac, last4, name FROM completions_apikey")
        stored = " ".join(map(str, cursor.fetchall()))
    assert secret not in stored
    assert full_key[-4:] in stored


def test_a_changed_secret_is_refused_with_at_most_six_characters_of_it_shown() -> None:
    _, full_key = make_key()
    wrong = full_key[:-1] + ("A" if full_key[-1] != "A" else "B")

    with pytest.raises(AuthenticationError) as caught:
        keys.authenticate(wrong)
    public_id, secret = keys.parse(wrong)
    assert public_id not in caught.value.message
    assert secret[-6:] not in caught.value.message


@pytest.mark.parametrize(
    "garbage", ["", "x", "sk-llmhub-", "sk-proj-abc", "sk-llmhub-" + "é" * 12 + "-" + "a" * 43]
)
def test_what_is_no_key_at_all_is_refused(garbage: str) -> None:
    with pytest.raises(AuthenticationError):
        keys.authenticate(garbage)


def test_a_revoked_key_is_refused_and_keeps_the_time_of_its_first_revocation() -> None:
    row, full_key = make_key()
    keys.revoke(row)
    first = row.revoked_at
    keys.revoke(row)

    assert row.revoked_at == first
    with pytest.raises(AuthenticationError, match="revoked"):
        keys.authenticate(full_key)


def test_an_expired_key_is_refused() -> None:
    _, full_key = make_key(expires_at=timezone.now() - timedelta(seconds=1))

    with pytest.raises(AuthenticationError, match="expired"):
        keys.authenticate(full_key)


def test_a_key_of_a_disabled_project_is_refused() -> None:
    _, full_key = make_key(make_project(enabled=False))

    with pytest.raises(AuthenticationError, match="disabled"):
        keys.authenticate(full_key)


def test_an_own_key_in_the_right_form_can_be_brought() -> None:
    own = keys.new_secret()
    row, full_key = make_key(secret=own)

    assert full_key == own
    assert keys.matches(row, own)


def test_an_own_key_in_another_form_is_refused_without_being_repeated() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make_key(secret="sk-proj-someone-elses")
    assert "someone" not in caught.value.message
    assert not ApiKey.objects.exists()


def test_a_key_gets_another_secret_and_the_old_one_stops_working() -> None:
    row, old = make_key()
    new = keys.new_secret()
    keys.replace_secret(row, new)

    assert keys.authenticate(new).api_key_id == row.pk
    with pytest.raises(AuthenticationError):
        keys.authenticate(old)


def test_with_the_wrong_encryption_key_no_caller_is_told_that_his_key_is_wrong(settings: object) -> None:
    _, full_key = make_key()
    keys.forget_pepper()
    settings.LLMHUB_ENCRYPTION_KEYS = ["another key altogether"]  # type: ignore[attr-defined]

    with pytest.raises(UnavailableError, match="LLMHUB_ENCRYPTION_KEYS"):
        keys.authenticate(full_key)
    assert HubSecret.objects.count() == 1
