"""Keys in use: recognised from memory, rotated with an overlap, noted later, kept to their models."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from completions import accounts, keys
from completions.errors import AuthenticationError, InvalidRequestError
from completions.models import ApiKey, Project
from providers.registry import snapshot
from tests.factories import make_key, make_project, make_provider

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two comparisons with the database."""
    monkeypatch.setattr(accounts, "CHECK_SECONDS", 3600.0)


def queries() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


class TestRecognising:
    def test_a_known_key_reads_no_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh(monkeypatch)
        _, full_key = make_key()
        keys.authenticate(full_key)
        with queries() as seen:
            keys.authenticate(full_key)
        assert len(seen) == 0

    async def test_nor_does_it_for_a_coroutine(
        self, transactional_db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fresh(monkeypatch)
        project = await Project.objects.acreate(slug="web", name="Web")
        row, full_key = await _amake_key(project)
        assert (await keys.aauthenticate(full_key)).api_key_id == row.pk

        def refuse(*_: Any) -> None:
            raise AssertionError("a thread was used")

        monkeypatch.setattr(keys, "sync_to_async", refuse)
        monkeypatch.setattr(accounts, "sync_to_async", refuse)
        assert (await keys.aauthenticate(full_key)).project == "web"
        with pytest.raises(AuthenticationError):
            await keys.aauthenticate("garbage")

    def test_a_stranger_is_looked_up_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh(monkeypatch)
        make_key()
        stranger = keys.new_secret()
        with pytest.raises(AuthenticationError):
            keys.authenticate(stranger)
        with queries() as seen, pytest.raises(AuthenticationError):
            keys.authenticate(stranger)
        assert len(seen) == 0

    def test_a_stranger_who_gets_a_key_is_recognised(self) -> None:
        own = keys.new_secret()
        with pytest.raises(AuthenticationError):
            keys.authenticate(own)
        row, _ = make_key(secret=own)
        assert keys.authenticate(own).api_key_id == row.pk

    def test_a_right_public_id_with_another_secret_is_refused(self) -> None:
        _, full_key = make_key()
        public_id, _ = keys.parse(full_key)
        with pytest.raises(AuthenticationError, match="Incorrect"):
            keys.authenticate(f"sk-llmhub-{public_id}-{'A' * 43}")

    def test_what_another_process_changed_is_seen_within_a_second(self) -> None:
        """The other process shares nothing but the database."""
        row, full_key = make_key()
        keys.authenticate(full_key)
        known = accounts._State.known
        keys.revoke(row)
        accounts._State.known, accounts._State.version = known, -1
        accounts._State.checked_at = float("-inf")
        with pytest.raises(AuthenticationError, match="revoked"):
            keys.authenticate(full_key)
        assert accounts.CHECK_SECONDS < 1


async def _amake_key(project: Project) -> tuple[ApiKey, str]:
    from asgiref.sync import sync_to_async

    return await sync_to_async(make_key)(project)


class TestRotation:
    def test_both_secrets_work_during_the_overlap(self) -> None:
        row, old = make_key()
        new = keys.rotate(row, HOUR)
        assert {keys.authenticate(key).api_key_id for key in (old, new)} == {row.pk}
        assert ApiKey.objects.get().last4 == new[-4:]

    def test_the_old_one_is_refused_after_it(self) -> None:
        row, old = make_key()
        new = keys.rotate(row, HOUR)
        row.old_valid_until = timezone.now() - timedelta(seconds=1)
        row.save()
        with pytest.raises(AuthenticationError, match="replaced"):
            keys.authenticate(old)
        assert keys.authenticate(new).api_key_id == row.pk

    def test_without_an_overlap_the_old_one_stops_at_once(self) -> None:
        row, old = make_key()
        keys.rotate(row, timedelta(0))
        with pytest.raises(AuthenticationError):
            keys.authenticate(old)

    def test_rotating_again_drops_the_oldest(self) -> None:
        row, oldest = make_key()
        old = keys.rotate(row, HOUR)
        new = keys.rotate(row, HOUR)
        with pytest.raises(AuthenticationError):
            keys.authenticate(oldest)
        assert {keys.authenticate(key).api_key_id for key in (old, new)} == {row.pk}

    def test_a_guess_at_the_old_secret_is_refused_like_any_other(self) -> None:
        row, old = make_key()
        keys.rotate(row, HOUR)
        public_id, _ = keys.parse(old)
        with pytest.raises(AuthenticationError, match="Incorrect"):
            keys.authenticate(f"sk-llmhub-{public_id}-{'A' * 43}")

    def test_goes_by_the_row_as_it_is_and_not_as_it_was_read(self) -> None:
        row, _ = make_key()
        stale = ApiKey.objects.get()
        first = keys.rotate(row, HOUR)
        second = keys.rotate(stale, HOUR)
        assert {keys.authenticate(key).api_key_id for key in (first, second)} == {row.pk}

    def test_revoking_ends_both_secrets(self) -> None:
        row, old = make_key()
        new = keys.rotate(row, HOUR)
        keys.revoke(row)
        for key in (old, new):
            with pytest.raises(AuthenticationError, match="revoked"):
                keys.authenticate(key)

    def test_a_revoked_key_is_not_rotated(self) -> None:
        row, _ = make_key()
        keys.revoke(row)
        with pytest.raises(InvalidRequestError, match="revoked"):
            keys.rotate(row, HOUR)

    @pytest.mark.parametrize("overlap", [timedelta(seconds=-1), keys.LONGEST_OVERLAP + HOUR])
    def test_an_overlap_out_of_bounds_is_refused(self, overlap: timedelta) -> None:
        row, _ = make_key()
        with pytest.raises(InvalidRequestError, match="90 days"):
            keys.rotate(row, overlap)

    def test_another_secret_by_hand_ends_a_rotation(self) -> None:
        row, old = make_key()
        keys.rotate(row, HOUR)
        keys.replace_secret(row, keys.new_secret())
        with pytest.raises(AuthenticationError):
            keys.authenticate(old)


class TestNotingUse:
    def test_it_is_written_together_and_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh(monkeypatch)
        first, second = make_key(name="a"), make_key(make_project("other"), "b")
        for _, full_key in (first, second):
            keys.authenticate(full_key)
        assert not ApiKey.objects.exclude(last_used_at=None).exists()
        keys.flush_uses()
        for row, _ in (first, second):
            row.refresh_from_db()
            assert row.last_used_at is not None
            assert timezone.now() - row.last_used_at < timedelta(seconds=30)

    def test_it_is_noted_at_most_once_a_minute(self) -> None:
        _, full_key = make_key()
        keys.authenticate(full_key)
        keys.flush_uses()
        ApiKey.objects.update(last_used_at=None)
        keys.authenticate(full_key)
        keys.flush_uses()
        assert ApiKey.objects.get().last_used_at is None

    def test_a_refused_key_is_not_noted(self) -> None:
        row, full_key = make_key()
        keys.revoke(row)
        with pytest.raises(AuthenticationError):
            keys.authenticate(full_key)
        keys.flush_uses()
        assert ApiKey.objects.get().last_used_at is None

    def test_a_later_use_that_another_process_wrote_stays(self) -> None:
        _, full_key = make_key()
        later = timezone.now() + HOUR
        keys.authenticate(full_key)
        ApiKey.objects.update(last_used_at=later)
        keys.flush_uses()
        assert ApiKey.objects.get().last_used_at == later

    def test_it_does_not_make_other_processes_read_the_key_again(self) -> None:
        _, full_key = make_key()
        keys.authenticate(full_key)
        known = accounts._State.known
        keys.flush_uses()
        assert accounts._State.known is known

    @pytest.mark.django_db(transaction=True)
    def test_a_thread_writes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "FLUSH_SECONDS", 0.01)
        _, full_key = make_key()
        keys.authenticate(full_key)
        timer = keys._Uses.timer
        if timer is not None:
            timer.join(10)
        assert ApiKey.objects.get().last_used_at is not None


class TestAllowedModels:
    @pytest.mark.parametrize(
        ("allowed", "may_call"),
        [
            ([], ["one/big", "one/small", "two/big"]),
            (["big"], ["one/big", "two/big"]),
            (["two/big"], ["two/big"]),
            (["small", "two/big"], ["one/small", "two/big"]),
            (["Big"], []),
            (["unknown"], []),
        ],
    )
    def test_names_choose_targets_plainly_or_with_their_provider(
        self, allowed: list[str], may_call: list[str]
    ) -> None:
        make_provider(slug="one", models=("big", "small"))
        make_provider(slug="two", models=("big",))
        row, _ = make_key(allowed_models=allowed)
        permitted = keys.permitted(snapshot().targets, row.pk)
        assert sorted(f"{t.endpoint.provider}/{t.public_model}" for t in permitted) == may_call

    def test_a_caller_without_a_key_may_call_all(self) -> None:
        make_provider(models=("a", "b"))
        assert len(keys.permitted(snapshot().targets, None)) == 2

    def test_a_key_that_is_gone_may_call_none(self) -> None:
        make_provider()
        assert keys.permitted(snapshot().targets, 12345) == ()
