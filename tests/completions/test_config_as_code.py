"""Configuration as code: the file applied and pruned, from Python and on the command line."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from completions import keys
from completions.config import apply_config, load
from completions.errors import AuthenticationError
from completions.models import ApiKey, Completion, Project
from providers import registry
from providers.models import KeyState, LanguageModel, LLMProvider, ModelPrice
from tests.completions.config_files import HUB, KEY, OTHER_KEY, SECRET, apply, demo, problems, web
from tests.factories import make_key, make_project, make_provider, make_staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("config_secrets")]


def use(row: ApiKey) -> None:
    """A call was made with the key."""
    row.last_used_at = timezone.now()
    row.save()


def call_of(project: Project) -> Completion:
    return Completion.objects.create(
        id="01890000-0000-7000-8000-000000000000",
        request_id="r",
        project=project,
        surface="api",
        requested_model="m",
        created_at=timezone.now(),
    )


class TestApplying:
    def test_makes_the_hub_the_file_describes(self) -> None:
        apply(HUB)
        provider = LLMProvider.objects.get(slug="local")
        assert (provider.name, provider.type, provider.api_key) == ("local", "openai_compatible", SECRET)
        assert (provider.default_model, provider.default_config) == ("gemma-3-270m", {"temperature": 0.7})
        assert (provider.connect_timeout_seconds, provider.total_timeout_seconds) == (5, 600)
        big = LanguageModel.objects.get(name="gpt-4o")
        assert (big.public_name, big.context_window, big.max_output) == ("big", 128000, 16384)
        assert big.prices.get().completion == Decimal(10)
        assert keys.authenticate(KEY).project == "web"

    def test_a_second_time_changes_nothing(self) -> None:
        apply(HUB)
        before = [list(rows.objects.values()) for rows in (LLMProvider, LanguageModel, ModelPrice, ApiKey)]
        assert not apply(HUB)
        assert not apply(HUB, prune=True)
        assert before == [
            list(rows.objects.values()) for rows in (LLMProvider, LanguageModel, ModelPrice, ApiKey)
        ]

    def test_what_it_names_can_be_called_at_once(self) -> None:
        registry.snapshot()
        apply(HUB)
        [target] = registry.snapshot().resolve("big")
        assert target.price is not None
        assert target.price.cached is not None
        assert target.price.cached.base == Decimal("1.25")

    def test_without_a_default_model_takes_the_first(self) -> None:
        apply(demo(models="[b, a]"))
        assert LLMProvider.objects.get().default_model == "b"

    def test_a_value_left_out_gets_its_default_back(self) -> None:
        apply(demo("priority: 5, enabled: false, name: Demo"))
        difference = apply(demo())
        row = LLMProvider.objects.get()
        assert (row.priority, row.enabled, row.name) == (100, True, "demo")
        assert "priority: 5 -> 100" in difference.render()

    def test_an_api_key_left_out_keeps_the_stored_one(self) -> None:
        apply(demo(f"api_key: {SECRET}"))
        assert not apply(demo())
        assert LLMProvider.objects.get().api_key == SECRET

    def test_an_empty_api_key_removes_the_stored_one(self) -> None:
        apply(demo(f"api_key: {SECRET}"))
        assert "api_key: removed" in apply(demo('api_key: ""')).render()
        assert LLMProvider.objects.get().key_state is KeyState.NONE

    def test_an_api_key_that_cannot_be_decrypted_is_replaced(self, settings: Settings) -> None:
        apply(demo(f"api_key: {SECRET}"))
        settings.LLMHUB_ENCRYPTION_KEYS = ["another"]
        assert apply(demo(f"api_key: {SECRET}"))
        assert LLMProvider.objects.get().api_key == SECRET

    def test_keeps_the_token_and_the_health_of_what_it_changes(self) -> None:
        apply(demo(f"api_key: {SECRET}"))
        LLMProvider.objects.update(health="ok")
        before = LLMProvider.objects.get().__dict__["api_key"]
        apply(demo(f"api_key: {SECRET}, priority: 7"))
        row = LLMProvider.objects.get()
        assert (row.__dict__["api_key"], row.health, row.priority) == (before, "ok", 7)

    def test_several_files_are_one_configuration(self) -> None:
        apply_config([load(demo(), "a.yaml", Path()), load(web(), "b.yaml", Path())])
        assert LLMProvider.objects.count() == Project.objects.count() == 1

    def test_a_mapping_made_in_python_is_taken_as_it_is(self) -> None:
        apply_config({"providers": [{"slug": "demo", "type": "demo", "models": ["m"], "name": "${HOME}"}]})
        assert LLMProvider.objects.get().name == "${HOME}"

    def test_aliases_and_merge_keys_work(self) -> None:
        apply(
            """\
            providers:
              - &one {slug: one, type: demo, models: [m], priority: 3}
              - {<<: *one, slug: two}
            """
        )
        assert list(LLMProvider.objects.values_list("slug", "priority")) == [("one", 3), ("two", 3)]

    def test_members_are_accounts_by_name(self) -> None:
        make_staff("ada")
        apply(web(rest="members: [ada]"))
        assert [user.get_username() for user in Project.objects.get().members.all()] == ["ada"]
        assert not apply(web())
        assert "members" in apply(web(rest="members: []")).render()
        assert not Project.objects.get().members.exists()


class TestPrices:
    def test_without_a_day_hold_from_the_beginning(self) -> None:
        apply(demo(models="[{name: m, prices: {prompt: 1, completion: 2}}]"))
        assert ModelPrice.objects.get().valid_from == date(1970, 1, 1)

    def test_with_days_are_a_list(self) -> None:
        apply(
            demo(
                models="[{name: m, prices: [{prompt: 1, completion: 2},"
                " {valid_from: 2026-11-01, prompt: 2, completion: 3}]}]"
            )
        )
        assert [price.prompt for price in ModelPrice.objects.order_by("valid_from")] == [1, 2]

    def test_are_read_to_the_last_digit(self) -> None:
        apply(demo(models="[{name: m, prices: {prompt: 123456789.123456789, completion: 0.000000001}}]"))
        price = ModelPrice.objects.get()
        assert (price.prompt, price.completion) == (Decimal("123456789.123456789"), Decimal("0.000000001"))

    def test_with_too_many_places_are_refused(self) -> None:
        [problem] = problems(demo(models="[{name: m, prices: {prompt: 0.0000000001, completion: 1}}]"))
        assert "providers[0].models[0].prices.prompt" in problem


class TestKeys:
    def test_without_a_secret_are_made_and_given_once(self) -> None:
        [issued] = apply(web("[{name: ci}]")).issued
        assert keys.authenticate(issued.secret.reveal()).project == "web"
        again = apply(web("[{name: ci}]"))
        assert not again
        assert not again.issued

    def test_with_another_secret_are_replaced_in_place(self) -> None:
        apply(web(f"[{{name: ci, secret: {KEY}}}]"))
        before = ApiKey.objects.get().pk
        assert "secret: changed" in apply(web(f"[{{name: ci, secret: {OTHER_KEY}}}]")).render()
        assert ApiKey.objects.get().pk == before
        assert keys.authenticate(OTHER_KEY)
        with pytest.raises(AuthenticationError):
            keys.authenticate(KEY)

    def test_with_a_secret_in_another_format_are_refused_without_showing_it(self) -> None:
        [problem] = problems(web("[{name: ci, secret: sk-canary-not-a-key}]"))
        assert "projects[0].keys[0].secret" in problem
        assert "sk-llmhub-" in problem
        assert "canary" not in problem

    def test_may_not_share_a_secret(self) -> None:
        [problem] = problems(web(f"[{{name: a, secret: {KEY}}}, {{name: b, secret: {KEY}}}]"))
        assert "projects[0].keys[1].secret: another key of the hub" in problem

    def test_expire_at_the_beginning_of_a_day_or_at_a_time(self) -> None:
        apply(web("[{name: a, expires: 2027-01-02}, {name: b, expires: 2027-01-02T03:04:05+01:00}]"))
        assert [key.expires_at for key in ApiKey.objects.order_by("name")] == [
            datetime(2027, 1, 2, tzinfo=UTC),
            datetime(2027, 1, 2, 2, 4, 5, tzinfo=UTC),
        ]

    def test_that_were_revoked_stay_so(self) -> None:
        text = web(f"[{{name: ci, secret: {KEY}}}]")
        apply(text)
        keys.revoke(ApiKey.objects.get())
        difference = apply(text)
        assert not difference
        assert "projects/web/keys/ci was revoked" in difference.render()
        with pytest.raises(AuthenticationError, match="revoked"):
            keys.authenticate(KEY)

    def test_that_were_revoked_live_again_with_another_secret(self) -> None:
        apply(web(f"[{{name: ci, secret: {KEY}}}]"))
        keys.revoke(ApiKey.objects.get())
        apply(web(f"[{{name: ci, secret: {OTHER_KEY}}}]"))
        assert keys.authenticate(OTHER_KEY)


class TestADryRun:
    def test_shows_the_difference_and_changes_nothing(self) -> None:
        rendered = apply(HUB, dry_run=True).render()
        assert "+ providers/local/models/gpt-4o\n    public_name: big" in rendered
        assert "7 added." not in rendered
        assert "6 added." in rendered
        assert not LLMProvider.objects.exists()
        assert not Project.objects.exists()

    def test_shows_old_and_new_values_but_no_secret(self) -> None:
        apply(demo(f"priority: 5, api_key: {SECRET}"))
        rendered = apply(demo("priority: 6, api_key: sk-canary-new-9876543210"), dry_run=True).render()
        assert rendered.splitlines() == [
            "~ providers/demo",
            "    api_key: changed",
            "    priority: 5 -> 6",
            "1 changed.",
        ]

    def test_shows_a_secret_in_a_wrong_place_as_the_file_writes_it(self) -> None:
        assert SECRET not in apply(demo('name: "${LOCAL_API_KEY}"'), dry_run=True).render()

    def test_gives_no_key_away_and_breaks_no_later_one(self) -> None:
        assert not apply(web("[{name: ci}]"), dry_run=True).issued
        [issued] = apply(web("[{name: ci}]")).issued
        keys.forget_pepper()
        assert keys.authenticate(issued.secret.reveal())


class TestWithoutPrune:
    def test_what_the_file_does_not_name_stays(self) -> None:
        apply(HUB)
        assert not apply("providers: []\nprojects: []\n")
        apply(demo())
        assert LLMProvider.objects.count() == 2


class TestPrune:
    def test_removes_providers_models_and_prices_that_are_not_named(self) -> None:
        make_provider(slug="gone")
        apply(demo(models="[{name: m, prices: {prompt: 1, completion: 1}}, n]"))
        rendered = apply(demo(), prune=True).render()
        assert "- providers/gone (deleted)" in rendered
        assert "- providers/demo/models/n (deleted)" in rendered
        assert "- providers/demo/models/m/prices/1970-01-01 (deleted)" in rendered
        assert [row.name for row in LanguageModel.objects.all()] == ["m"]
        assert not ModelPrice.objects.exists()

    def test_leaves_a_section_alone_that_the_file_lacks(self) -> None:
        make_project()
        apply(demo(), prune=True)
        assert Project.objects.exists()

    def test_disables_a_project_that_has_calls_in_the_ledger(self) -> None:
        call_of(make_project())
        assert "- projects/web (disabled" in apply("projects: []", prune=True).render()
        assert not Project.objects.get().enabled
        assert not apply("projects: []", prune=True)

    def test_deletes_a_project_without_calls(self) -> None:
        make_project()
        apply("projects: []", prune=True)
        assert not Project.objects.exists()

    def test_revokes_a_key_that_was_used_and_deletes_one_that_was_not(self) -> None:
        used, _ = make_key(name="used")
        make_key(used.project, name="unused")
        use(used)
        rendered = apply(web(), prune=True).render()
        assert "- projects/web/keys/used (revoked" in rendered
        assert "- projects/web/keys/unused (deleted" in rendered
        assert ApiKey.objects.get().revoked_at is not None
        assert not apply(web(), prune=True)

    def test_frees_a_public_name_for_another_model(self) -> None:
        apply(demo(models="[{name: old, public_name: big}]"))
        apply(demo(models="[{name: new, public_name: big}]"), prune=True)
        assert LanguageModel.objects.get().name == "new"


class TestTheCommands:
    def run(self, *arguments: str) -> str:
        out = io.StringIO()
        call_command(*arguments, stdout=out)
        return out.getvalue()

    def test_apply_prints_the_difference_and_a_made_key_once(self, tmp_path: Path) -> None:
        file = tmp_path / "hub.yaml"
        file.write_text(web("[{name: ci}]"))
        printed = self.run("apply", str(file))
        assert "+ projects/web/keys/ci" in printed
        assert keys.authenticate(printed.split()[-1]).project == "web"
        assert self.run("apply", str(file)) == "No changes.\n"

    def test_apply_reads_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(demo()))
        self.run("apply", "-")
        assert LLMProvider.objects.exists()

    def test_a_dry_run_says_so(self, tmp_path: Path) -> None:
        file = tmp_path / "hub.yaml"
        file.write_text(demo())
        assert "Dry run: nothing was changed." in self.run("apply", str(file), "--dry-run")
        assert not LLMProvider.objects.exists()

    def test_apply_refuses_with_the_files_name_and_line(self, tmp_path: Path) -> None:
        file = tmp_path / "hub.yaml"
        file.write_text(demo("nmae: x"))
        with pytest.raises(CommandError) as refused:
            self.run("apply", str(file))
        assert f"{file}:2: providers[0].nmae: unknown key; did you mean 'name'?" in str(refused.value)
        assert "1 problem; nothing was changed." in str(refused.value)

    def test_apply_says_which_file_it_cannot_read(self, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match=r"absent\.yaml cannot be read"):
            self.run("apply", str(tmp_path / "absent.yaml"))

    def test_what_export_prints_apply_takes(self, tmp_path: Path) -> None:
        apply(demo("priority: 4"))
        file = tmp_path / "hub.yaml"
        file.write_text(self.run("export_config"))
        assert self.run("apply", str(file), "--prune") == "No changes.\n"
