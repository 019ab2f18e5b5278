"""How the rows of each kind are compared, checked, saved and removed: one class where a kind differs."""

from collections.abc import Collection, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import ProtectedError

from completions import keys
from completions.config.difference import Difference, IssuedKey
from completions.config.shape import Children, Entry, Field
from completions.models import ApiKey, Budget, BudgetWindow, Project
from providers.checks import provider_problems
from providers.errors import DecryptionError
from providers.models import KeyState, LLMProvider
from providers.types import Secret

UNSIGNED = "missing: a webhook's posts are signed with it"


class Rows:
    """Rows that are what their columns say."""

    relations: frozenset[str] = frozenset()  # values that are no column of the row: written after it is saved

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model

    def of(self, parent: models.Model | None, link: Children) -> "models.QuerySet[Any]":
        of_parent = {link.parent: parent} if link.parent else {}
        return self.model._default_manager.filter(**of_parent, **link.only)

    def new(self, of_parent: Mapping[str, models.Model]) -> Any:
        """A row that is not yet saved."""
        return self.model(**of_parent)

    def current(self, row: Any, field: Field) -> Any:
        return getattr(row, field.name)

    def keeps_secret(self, row: Any) -> bool:
        return bool(self.placeholder(row))

    def placeholder(self, row: Any) -> tuple[str, ...]:
        """Words of the variable that stands for this row's secret in an export; none where it keeps none."""
        return ()

    def exported(self) -> "models.QuerySet[Any]":
        return self.model._default_manager.all()

    def same(self, row: Any, field: Field, value: Any) -> bool:
        return bool(self.current(row, field) == value)

    def problems(self, row: Any, entry: Entry) -> dict[str, str]:
        """What only this kind knows to be wrong, by attribute."""
        return {}

    def save(self, row: Any, entry: Entry, changed: Collection[str], difference: Difference) -> None:
        """Write a new row whole, a known one only where it changed: its health may be written meanwhile."""
        if row._state.adding:
            row.save()
        elif columns := set(changed) - self.relations:
            stamps = {field.name for field in row._meta.concrete_fields if getattr(field, "auto_now", False)}
            row.save(update_fields=columns | stamps)

    def remove(self, row: Any) -> str | None:
        """Remove a row; the word for how, or None when there was nothing left to do."""
        row.delete()
        return "deleted"


class ProviderRows(Rows):
    def placeholder(self, row: LLMProvider) -> tuple[str, ...]:
        return () if row.key_state is KeyState.NONE else (row.slug, "API_KEY")

    def same(self, row: LLMProvider, field: Field, value: Any) -> bool:
        try:
            return super().same(row, field, value)
        except DecryptionError:
            return False

    def problems(self, row: LLMProvider, entry: Entry) -> dict[str, str]:
        checked = ("name", "type", "preset", "base_url", "default_model", "default_config")
        values = {name: getattr(row, name) for name in checked}
        names = [model.identity for model in entry.children["models"] if model.identity is not None]
        has_key = bool(entry.values["api_key"]) if "api_key" in entry.values else self.keeps_secret(row)
        found = provider_problems(values, names, has_key=has_key)
        if "models" in entry.faulty:
            found.pop("default_model", None)
        return found


class ProjectRows(Rows):
    """Members are accounts: the file names them, it does not make them."""

    relations = frozenset({"members"})

    def current(self, row: Project, field: Field) -> Any:
        if field.name != "members":
            return super().current(row, field)
        return [] if row._state.adding else sorted(user.get_username() for user in row.members.all())

    def same(self, row: Project, field: Field, value: Any) -> bool:
        current = self.current(row, field)
        return bool(sorted(value) == current if field.name == "members" else value == current)

    def problems(self, row: Project, entry: Entry) -> dict[str, str]:
        names = set(entry.values.get("members", []))
        unknown = names - {user.get_username() for user in self._users(names)}
        if not unknown:
            return {}
        return {
            "members": f"no such user: {', '.join(sorted(unknown))}. Add the account first (admin, Users)"
        }

    def save(self, row: Project, entry: Entry, changed: Collection[str], difference: Difference) -> None:
        super().save(row, entry, changed, difference)
        if "members" in changed:
            row.members.set(self._users(entry.values["members"]))

    def _users(self, names: Collection[str]) -> "models.QuerySet[Any]":
        accounts = get_user_model()
        return accounts._default_manager.filter(**{f"{accounts.USERNAME_FIELD}__in": list(names)})

    def remove(self, row: Project) -> str | None:
        try:
            row.delete()
        except ProtectedError:  # it has calls in the ledger, and the ledger keeps its projects
            if not row.enabled:
                return None
            row.enabled = False
            row.save(update_fields=["enabled"])
            return "disabled: it has calls in the ledger"
        return "deleted"


class KeyRows(Rows):
    """Only an HMAC of a key is stored: it is compared, never read, and a revoked key stays revoked."""

    relations = frozenset({"secret"})

    def exported(self) -> "models.QuerySet[Any]":
        return ApiKey.objects.filter(revoked_at=None)

    def current(self, row: ApiKey, field: Field) -> Any:
        return None if field.secret else super().current(row, field)

    def placeholder(self, row: ApiKey) -> tuple[str, ...]:
        return (row.project.slug, row.name, "KEY") if row.secret_hmac else ()

    def same(self, row: ApiKey, field: Field, value: Any) -> bool:
        if not field.secret:
            return super().same(row, field, value)
        return not row._state.adding and keys.matches(row, value)

    def problems(self, row: ApiKey, entry: Entry) -> dict[str, str]:
        secret = entry.values.get("secret")
        if secret is None:
            return {}
        owner = keys.owner_of(keys.parse(secret)[0])
        if owner is not None and owner.pk != row.pk:
            return {
                "secret": "another key of the hub has the same public id; give each key a secret of its own"
            }
        return {}

    def save(self, row: ApiKey, entry: Entry, changed: Collection[str], difference: Difference) -> None:
        secret = entry.values.get("secret")
        if row._state.adding:
            full_key = keys.issue(row, secret)
            if secret is None:
                difference.issued.append(IssuedKey(row.project.slug, row.name, Secret(full_key)))
            return
        if "secret" in changed:
            keys.replace_secret(row, entry.values["secret"])
            row.revoked_at = None  # another secret is another key: the leaked one stays refused
            changed = {*changed, "revoked_at"}
        super().save(row, entry, changed, difference)

    def remove(self, row: ApiKey) -> str | None:
        paid = BudgetWindow.objects.filter(budget__api_key=row).exists()
        if row.last_used_at is None and row.revoked_at is None and not paid:
            row.delete()
            return "deleted: it was never used"
        if row.revoked_at is not None:
            return None
        keys.revoke(row)
        return "revoked: calls in the ledger were made with it"


class BudgetRows(Rows):
    """A budget is of a project or of one of its keys; what calls have charged to it is kept."""

    def new(self, of_parent: Mapping[str, models.Model]) -> Budget:
        key = of_parent.get("api_key")
        return Budget(project=key.project, api_key=key) if isinstance(key, ApiKey) else Budget(**of_parent)

    def placeholder(self, row: Budget) -> tuple[str, ...]:
        if not row.webhook_url or not row.__dict__.get("webhook_secret"):
            return ()
        owner = (row.project.slug,) if row.api_key is None else (row.project.slug, row.api_key.name)
        each = ("each_user",) if row.per_end_user else ()
        return (*owner, row.period, *each, "WEBHOOK_SECRET")

    def same(self, row: Budget, field: Field, value: Any) -> bool:
        try:
            return super().same(row, field, value)
        except DecryptionError:
            return False

    def problems(self, row: Budget, entry: Entry) -> dict[str, str]:
        given = entry.values.get("webhook_secret", "") if "webhook_secret" in entry.values else None
        signed = self.keeps_secret(row) if given is None else bool(given)
        return {} if signed or not row.webhook_url else {"webhook_secret": UNSIGNED}

    def remove(self, row: Budget) -> str | None:
        if not row.windows.exists():
            row.delete()
            return "deleted: nothing was ever charged to it"
        if not row.enabled:
            return None
        row.enabled = False
        row.save(update_fields=["enabled"])
        return "disabled: calls were charged to it"
