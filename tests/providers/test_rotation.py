"""Rotating encryption keys, as staff do it on the command line."""

import io
from collections.abc import Iterator

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from completions.keys import authenticate, forget_pepper
from providers.fields import Ciphertext, EncryptedTextField, sealed_with_newest
from providers.management.commands import rotate_encryption_keys as rotation
from providers.models import LLMProvider
from tests.factories import make_key, make_provider

pytestmark = pytest.mark.django_db
FIELD = LLMProvider._meta.get_field("api_key")
assert isinstance(FIELD, EncryptedTextField)


@pytest.fixture(autouse=True)
def _no_pepper_of_another_test() -> Iterator[None]:
    forget_pepper()
    yield
    forget_pepper()


def rotate(*options: str) -> str:
    out = io.StringIO()
    call_command("rotate_encryption_keys", *options, stdout=out)
    return out.getvalue()


def token(slug: str = "upstream") -> str:
    return FIELD.stored(LLMProvider.objects.get(slug=slug))


@pytest.fixture
def newer_key(settings: Settings) -> str:
    make_provider(api_key="sk-canary-0123456789")
    [old] = settings.LLMHUB_ENCRYPTION_KEYS
    settings.LLMHUB_ENCRYPTION_KEYS = ["a newer key", old]
    return old


@pytest.mark.usefixtures("newer_key")
def test_after_a_rotation_the_newest_key_alone_reads_everything(settings: Settings) -> None:
    assert "1 sealed anew" in rotate()
    settings.LLMHUB_ENCRYPTION_KEYS = ["a newer key"]
    assert LLMProvider.objects.get().api_key == "sk-canary-0123456789"


def test_the_secrets_the_hub_made_for_itself_are_rotated_too(settings: Settings) -> None:
    _, full_key = make_key()
    [old] = settings.LLMHUB_ENCRYPTION_KEYS
    settings.LLMHUB_ENCRYPTION_KEYS = ["a newer key", old]
    rotate()
    settings.LLMHUB_ENCRYPTION_KEYS = ["a newer key"]
    forget_pepper()
    assert authenticate(full_key).project == "web"


@pytest.mark.usefixtures("newer_key")
def test_a_second_rotation_has_nothing_to_do() -> None:
    rotate()
    before = token()
    assert "0 sealed anew, 1 already newest" in rotate()
    assert token() == before


@pytest.mark.usefixtures("newer_key")
def test_a_rotation_takes_more_than_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH_ROWS", 2)
    for number in range(4):
        make_provider(slug=f"p{number}", api_key="sk-canary-0123456789")
    assert "1 sealed anew, 4 already newest" in rotate()


@pytest.mark.usefixtures("newer_key")
def test_a_dry_run_changes_nothing() -> None:
    before = token()
    assert "1 to seal anew" in rotate("--dry-run")
    assert token() == before


@pytest.mark.usefixtures("newer_key")
def test_rows_without_a_secret_are_passed_over() -> None:
    make_provider(slug="keyless")
    assert "1 sealed anew, 0 already newest" in rotate()


@pytest.mark.usefixtures("newer_key")
def test_a_secret_changed_meanwhile_is_not_overwritten() -> None:
    seen = LLMProvider.objects.get()
    edited = LLMProvider.objects.get()
    edited.api_key = "sk-edited-0123456789"
    edited.save()
    assert rotation.rotate(FIELD, seen, dry_run=False) == "changed meanwhile"
    assert LLMProvider.objects.get().api_key == "sk-edited-0123456789"


@pytest.mark.usefixtures("newer_key")
def test_what_cannot_be_decrypted_is_listed_and_the_rest_is_rotated() -> None:
    lost = make_provider(slug="lost")
    LLMProvider.objects.filter(pk=lost.pk).update(api_key=Ciphertext("gAAAAnonsense"))
    with pytest.raises(CommandError, match=rf"providers\.LLMProvider {lost.pk}: api_key") as refused:
        rotate()
    assert refused.value.returncode == 1
    assert sealed_with_newest(token())
    assert token("lost") == "gAAAAnonsense"


@pytest.mark.usefixtures("newer_key")
def test_no_secret_is_printed() -> None:
    assert "canary" not in rotate()


def test_every_encrypted_field_of_the_hub_is_found() -> None:
    assert {str(field) for field in rotation.encrypted_fields()} >= {
        "providers.LLMProvider.api_key",
        "completions.HubSecret.value",
    }
