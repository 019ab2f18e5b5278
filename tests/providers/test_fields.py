"""Encrypted text and exact dollars, as they lie in the database and as they come back."""

import json
from decimal import Decimal

import pytest
from django.core import serializers
from django.core.exceptions import FieldError, ValidationError
from django.db import connection
from django.forms.models import model_to_dict
from pytest_django import Settings

from providers.errors import DecryptionError
from providers.fields import Ciphertext, DollarField
from providers.models import KeyState, LanguageModel, LLMProvider, ModelPrice
from tests.factories import make_provider

SECRET = "sk-canary-0123456789"

pytestmark = pytest.mark.django_db


def stored_token(provider: LLMProvider) -> str:
    with connection.cursor() as cursor:
        pk = LLMProvider._meta.pk.get_db_prep_value(provider.pk, connection)
        cursor.execute("SELECT api_key FROM providers_llmprovider WHERE id = %s", [pk])
        return str(cursor.fetchone()[0])


def loaded(provider: LLMProvider) -> LLMProvider:
    return LLMProvider.objects.get(pk=provider.pk)


@pytest.fixture
def provider() -> LLMProvider:
    return make_provider(api_key=SECRET)


@pytest.fixture
def wrong_key(provider: LLMProvider, settings: Settings) -> None:
    settings.LLMHUB_ENCRYPTION_KEYS = ["a key that never wrote anything"]


class TestEncryptedText:
    def test_comes_back_as_it_was_set(self, provider: LLMProvider) -> None:
        assert loaded(provider).api_key == SECRET

    def test_lies_encrypted_in_the_database(self, provider: LLMProvider) -> None:
        assert SECRET not in stored_token(provider)
        assert stored_token(provider).startswith("gAAAA")

    def test_an_empty_value_stays_empty(self) -> None:
        provider = make_provider()
        assert stored_token(provider) == ""
        assert loaded(provider).api_key == ""

    def test_a_token_copied_to_another_row_does_not_open_there(self, provider: LLMProvider) -> None:
        other = make_provider(slug="other")
        LLMProvider.objects.filter(pk=other.pk).update(api_key=Ciphertext(stored_token(provider)))
        with pytest.raises(DecryptionError, match="another row"):
            _ = loaded(other).api_key

    def test_a_value_given_to_another_row_is_sealed_for_that_row(self, provider: LLMProvider) -> None:
        other = make_provider(slug="other", api_key=loaded(provider).api_key)
        assert loaded(other).api_key == SECRET

    def test_saving_an_untouched_row_keeps_the_token_byte_for_byte(self, provider: LLMProvider) -> None:
        before = stored_token(provider)
        loaded(provider).save()
        assert stored_token(provider) == before

    def test_validating_before_saving_keeps_the_token(self, provider: LLMProvider) -> None:
        before, row = stored_token(provider), loaded(provider)
        row.full_clean()
        row.save()
        assert stored_token(provider) == before

    def test_refreshing_before_saving_keeps_the_token(self, provider: LLMProvider) -> None:
        before, row = stored_token(provider), loaded(provider)
        row.refresh_from_db()
        row.save()
        assert stored_token(provider) == before

    def test_a_new_value_replaces_the_old(self, provider: LLMProvider) -> None:
        row = loaded(provider)
        row.api_key = "sk-another-0123456789"
        row.save()
        assert loaded(provider).api_key == "sk-another-0123456789"
        assert loaded(provider).api_key_last4 == "6789"

    def test_a_deferred_value_is_read_when_it_is_wanted(self, provider: LLMProvider) -> None:
        row = LLMProvider.objects.defer("api_key").get(pk=provider.pk)
        assert "api_key" in row.get_deferred_fields()
        assert row.api_key == SECRET

    def test_a_deferred_value_survives_a_save(self, provider: LLMProvider) -> None:
        before = stored_token(provider)
        LLMProvider.objects.defer("api_key").get(pk=provider.pk).save()
        assert stored_token(provider) == before

    def test_an_update_cannot_store_plaintext(self, provider: LLMProvider) -> None:
        with pytest.raises(ValueError, match="save"):
            LLMProvider.objects.filter(pk=provider.pk).update(api_key="sk-plain-0123456789")

    def test_a_bulk_update_cannot_store_plaintext(self, provider: LLMProvider) -> None:
        with pytest.raises(ValueError, match="save"):
            LLMProvider.objects.bulk_update([loaded(provider)], ["api_key"])

    def test_a_bulk_create_encrypts(self) -> None:
        [row] = LLMProvider.objects.bulk_create([LLMProvider(slug="bulk", name="Bulk", api_key=SECRET)])
        assert SECRET not in stored_token(row)

    def test_rows_without_a_value_can_be_found(self, provider: LLMProvider) -> None:
        make_provider(slug="keyless")
        assert [row.slug for row in LLMProvider.objects.filter(api_key="")] == ["keyless"]

    def test_a_value_cannot_be_searched(self) -> None:
        field = LLMProvider._meta.get_field("api_key")
        with pytest.raises(FieldError, match="encrypted"):
            field.get_lookup("startswith")


class TestAWrongEncryptionKey:
    @pytest.mark.usefixtures("wrong_key")
    def test_raises_where_the_value_is_read(self, provider: LLMProvider) -> None:
        with pytest.raises(DecryptionError, match="LLMHUB_ENCRYPTION_KEYS"):
            _ = loaded(provider).api_key

    @pytest.mark.usefixtures("wrong_key")
    def test_is_a_state_of_the_key(self, provider: LLMProvider) -> None:
        assert loaded(provider).key_state is KeyState.UNREADABLE

    @pytest.mark.usefixtures("wrong_key")
    def test_lets_the_row_be_saved_with_its_token(self, provider: LLMProvider) -> None:
        before, row = stored_token(provider), loaded(provider)
        row.name = "Renamed"
        row.save()
        assert (loaded(provider).name, stored_token(provider)) == ("Renamed", before)

    @pytest.mark.usefixtures("wrong_key")
    def test_lets_the_row_be_deleted(self, provider: LLMProvider) -> None:
        loaded(provider).delete()
        assert not LLMProvider.objects.exists()

    @pytest.mark.usefixtures("wrong_key")
    def test_lets_the_value_be_entered_anew(self, provider: LLMProvider) -> None:
        row = loaded(provider)
        row.api_key = SECRET
        row.save()
        assert loaded(provider).api_key == SECRET

    def test_an_older_key_still_reads_while_the_newest_writes(
        self, provider: LLMProvider, settings: Settings
    ) -> None:
        [old] = settings.LLMHUB_ENCRYPTION_KEYS
        settings.LLMHUB_ENCRYPTION_KEYS = ["newest", old]
        assert loaded(provider).api_key == SECRET
        written = make_provider(slug="written", api_key=SECRET)
        settings.LLMHUB_ENCRYPTION_KEYS = ["newest"]
        assert loaded(written).api_key == SECRET
        assert loaded(provider).key_state is KeyState.UNREADABLE


class TestASecretIsNeverShown:
    def test_by_serializers_and_dumps(self, provider: LLMProvider) -> None:
        dump = serializers.serialize("json", LLMProvider.objects.all())
        assert json.loads(dump)[0]["fields"]["api_key"] == ""
        assert stored_token(provider) not in dump

    def test_by_forms(self, provider: LLMProvider) -> None:
        assert model_to_dict(loaded(provider))["api_key"] == ""

    def test_by_repr(self, provider: LLMProvider) -> None:
        row = loaded(provider)
        assert SECRET not in f"{row!r} {row} {row.__dict__!r}"
        assert stored_token(provider) not in repr(row.__dict__)


class TestDollars:
    @pytest.mark.parametrize(
        "amount", ["0", "0.000000001", "2.50", "123456789.123456789", "999999999.999999999"]
    )
    def test_are_exact(self, amount: str) -> None:
        model = LanguageModel.objects.get(provider=make_provider())
        price = ModelPrice.objects.create(model=model, prompt=Decimal(amount), completion=Decimal(1))
        assert ModelPrice.objects.get(pk=price.pk).prompt == Decimal(amount)
        assert ModelPrice.objects.filter(prompt=Decimal(amount)).exists()

    def test_with_ten_decimal_places_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="nine decimal places"):
            DollarField().get_prep_value(Decimal("0.0000000001"))

    @pytest.mark.parametrize("amount", ["much", "NaN", "Infinity", ""])
    def test_must_be_a_number(self, amount: str) -> None:
        with pytest.raises(ValidationError, match="not an amount"):
            DollarField().get_prep_value(amount)

    @pytest.mark.parametrize("amount", ["-1", "1000000000", "0.0000000001", "NaN"])
    def test_are_validated(self, amount: str) -> None:
        with pytest.raises(ValidationError):
            DollarField().clean(Decimal(amount), None)

    def test_are_entered_as_decimals_in_a_form(self) -> None:
        field = ModelPrice._meta.get_field("cached").formfield()
        assert field is not None
        assert field.clean("0.000000001") == Decimal("0.000000001")
        assert field.clean("") is None
        with pytest.raises(ValidationError):
            field.clean("-1")
