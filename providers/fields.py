"""Model fields with a meaning: encrypted text bound to its row, and exact dollars.

Encryption: MultiFernet over keys derived (HKDF, one purpose each) from LLMHUB_ENCRYPTION_KEYS, newest first.
The plaintext carries the row it belongs to, so a ciphertext copied to another row does not open there.
"""

import base64
import functools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import FieldError, ValidationError
from django.core.validators import DecimalValidator, MinValueValidator
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.forms import Field as FormField
from django.utils.text import capfirst

from providers.errors import DecryptionError
from providers.types import NANO

PURPOSE = b"llmhub encrypted field v1"


@functools.lru_cache(maxsize=8)
def _fernets(keys: tuple[str, ...]) -> tuple[Fernet, ...]:
    def derive(secret: str) -> Fernet:
        hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE)
        return Fernet(base64.urlsafe_b64encode(hkdf.derive(secret.encode())))

    return tuple(derive(key) for key in keys)


def fernets() -> tuple[Fernet, ...]:
    """One Fernet for each configured encryption key, newest first."""
    return _fernets(tuple(settings.LLMHUB_ENCRYPTION_KEYS))


class Ciphertext(str):
    """A stored token as it came from the database: not yet opened."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Ciphertext(***)"


def encrypt(plaintext: str, binding: str) -> Ciphertext:
    """`plaintext` sealed with the newest key, openable only under the same `binding`."""
    payload = json.dumps([binding, plaintext]).encode()
    return Ciphertext(fernets()[0].encrypt(payload).decode())


def decrypt(token: str, binding: str) -> str:
    """The plaintext of `token`. Raises DecryptionError: unknown key, damaged token, another row's token."""
    try:
        bound_to, plaintext = json.loads(MultiFernet(fernets()).decrypt(token.encode()))
    except (InvalidToken, ValueError):
        raise DecryptionError(
            "the stored value cannot be read with the keys in LLMHUB_ENCRYPTION_KEYS; add the key it was "
            "written with, or enter the value anew"
        ) from None
    if bound_to != binding:
        raise DecryptionError("the stored value belongs to another row; enter it anew")
    return str(plaintext)


def sealed_with_newest(token: str) -> bool:
    """Whether `token` was written with the newest key (so a rotation has nothing to do)."""
    try:
        fernets()[0].decrypt(token.encode())
    except InvalidToken:
        return False
    return True


class Opened(str):
    """Plaintext that remembers its token: written back to its own row unchanged, it is that token again.

    Django itself reads and writes back (refresh_from_db, full_clean); without this, each would seal anew.
    """

    __slots__ = ("binding", "token")
    token: str
    binding: str

    def __new__(cls, token: str, binding: str) -> "Opened":
        made = super().__new__(cls, decrypt(token, binding))
        made.token, made.binding = token, binding
        return made


class EncryptedAttribute:
    """Decrypts on access: loading or saving a row never needs the key, and a wrong key shows only here."""

    def __init__(self, field: "EncryptedTextField") -> None:
        self.field = field

    def __get__(self, instance: models.Model | None, owner: type[models.Model]) -> Any:
        if instance is None:
            return self
        name = self.field.attname
        if name not in instance.__dict__:  # deferred
            rows = type(instance)._base_manager.using(instance._state.db).filter(pk=instance.pk)
            instance.__dict__[name] = rows.values_list(name, flat=True).get()
        value = instance.__dict__[name]
        return Opened(value, self.field.binding(instance)) if isinstance(value, Ciphertext) else value

    def __set__(self, instance: models.Model, value: str | None) -> None:
        if isinstance(value, Opened) and value.binding == self.field.binding(instance):
            value = Ciphertext(value.token)
        instance.__dict__[self.field.attname] = value


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]
    """Text encrypted at rest. Reading the attribute gives plaintext or raises DecryptionError; '' stays ''.

    The row's primary key is part of the seal: give the model one that exists before the first save (a UUID).
    No lookups but isnull and exact ''.
    """

    descriptor_class = EncryptedAttribute

    def binding(self, instance: models.Model) -> str:
        return f"{instance._meta.label_lower}.{self.attname}:{instance.pk}"

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        return Ciphertext(value) if value else value

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = model_instance.__dict__.get(self.attname)
        if not value or isinstance(value, Ciphertext):
            return value
        return encrypt(value, self.binding(model_instance))

    def get_prep_value(self, value: Any) -> Any:
        if value and not isinstance(
            value, Ciphertext
        ):  # update(), bulk_update() and filter() bypass pre_save
            raise ValueError(f"{self.name} is encrypted with its row: set it on an instance and save() that")
        return str(value) if value else value

    def stored(self, instance: models.Model) -> str:
        """The token as it lies in the row ('' if none): for rotation."""
        value = instance.__dict__.get(self.attname)
        return value if isinstance(value, Ciphertext) else ""

    def value_from_object(self, obj: models.Model) -> str:
        return ""  # forms, serialisation and dumps never see the secret

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name not in ("isnull", "exact"):
            raise FieldError(f"{self.name} is encrypted and cannot be searched by {lookup_name!r}")
        return super().get_lookup(lookup_name)


class DollarField(models.BigIntegerField):  # type: ignore[type-arg]
    """US dollars as an exact Decimal with nine places, stored as whole nano-dollars.

    SQLite would store a DecimalField as a floating-point number; an integer stays what it is.
    """

    # For the type checker only: what is set, read and looked up.
    _pyi_private_set_type: Decimal | int  # type: ignore[assignment]
    _pyi_private_get_type: Decimal  # type: ignore[assignment]
    _pyi_lookup_exact_type: Decimal | int  # type: ignore[assignment]

    def from_db_value(self, value: int | None, *_: Any) -> Decimal | None:
        return None if value is None else Decimal(value) / NANO

    def to_python(self, value: Any) -> Any:
        if value is None:
            return None
        try:
            amount = value if isinstance(value, Decimal) else Decimal(str(value))
        except ArithmeticError:
            amount = Decimal("NaN")
        if not amount.is_finite():
            raise ValidationError(f"{value!r} is not an amount in dollars", code="invalid")
        return amount

    def get_prep_value(self, value: Any) -> int | None:
        if value is None:
            return None
        amount: Decimal = self.to_python(value) * NANO
        if amount != amount.to_integral_value():
            raise ValidationError(f"{value} has more than nine decimal places", code="invalid")
        return int(amount)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        return value if prepared else self.get_prep_value(value)

    def formfield(self, **kwargs: Any) -> FormField | None:
        from django.forms import DecimalField

        options: dict[str, Any] = {"max_digits": 18, "decimal_places": 9, "min_value": 0} | kwargs
        options.pop("choices_form_class", None)
        form_class: Callable[..., FormField] = options.pop("form_class", DecimalField)
        return form_class(
            required=not self.blank, label=capfirst(self.verbose_name), help_text=self.help_text, **options
        )

    @property
    def validators(self) -> list[Any]:
        # Not BigIntegerField's: its bounds are those of the stored nano-dollars. Nine digits fit 64 bits.
        return [*self._validators, MinValueValidator(0), DecimalValidator(max_digits=18, decimal_places=9)]  # type: ignore[attr-defined]
