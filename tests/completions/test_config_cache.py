"""Configuration as code: what may be cached, for how long, and for whom."""

import pytest

from completions.config import export_text
from completions.models import ApiKey, Project
from providers import registry
from providers.models import LanguageModel
from providers.types import CacheMode, CacheRules
from tests.completions.config_files import apply, demo, problems, web

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("config_secrets")]

FULL = """\
providers:
  - slug: demo
    type: demo
    models:
      - name: m
        cache:
          mode: forced
          ttl_seconds: 3600
          stale_seconds: 60
          least_similarity: 0.97
projects:
  - slug: web
    cache:
      scope: key
      group: shop
    keys:
      - name: ci
        cache: off
"""


def model() -> LanguageModel:
    return LanguageModel.objects.get()


def test_a_model_a_project_and_a_key_say_what_is_cached() -> None:
    apply(FULL)

    assert (model().cache_mode, model().cache_ttl_seconds, model().cache_stale_seconds) == (
        "forced",
        3600,
        60,
    )
    assert model().cache_least_similarity == 0.97
    project, key = Project.objects.get(), ApiKey.objects.get()
    assert (project.cache_scope, project.cache_group, key.cache_mode) == ("key", "shop", "off")


def test_it_holds_at_once() -> None:
    registry.snapshot()
    apply(FULL)

    (target,) = registry.snapshot().resolve("m")
    assert target.cache == CacheRules(CacheMode.FORCED, 3600, 60, 0.97)


@pytest.mark.parametrize(
    ("written", "stored"),
    [("on", "on"), ("off", "off"), ("true", "on"), ('"on"', "on"), ("forced", "forced")],
)
def test_a_mode_may_be_a_bare_word_of_yaml(written: str, stored: str) -> None:
    apply(
        demo(models=f"[{{name: m, cache: {{mode: {written}}}}}]") + web(f"[{{name: ci, cache: {written}}}]")
    )

    assert (model().cache_mode, ApiKey.objects.get().cache_mode) == (stored, stored)


def test_what_is_left_out_gets_its_default_back() -> None:
    apply(FULL)
    apply(demo() + web("[{name: ci}]"))

    assert (model().cache_mode, model().cache_ttl_seconds, model().cache_stale_seconds) == ("", None, 0)
    assert model().cache_least_similarity is None
    project, key = Project.objects.get(), ApiKey.objects.get()
    assert (project.cache_scope, project.cache_group, key.cache_mode) == ("project", "", "")


def test_an_export_writes_it_and_applies_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(FULL)
    text = export_text()
    monkeypatch.setenv("WEB_CI_KEY", f"sk-llmhub-abcdefABCDEF-{'x' * 43}")

    assert "cache:\n          mode: forced" in text
    assert "cache: 'off'" in text  # in quotes: else it would be false to others who read YAML
    apply(text)
    assert export_text() == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (demo(models="[{name: m, cache: {mode: maybe}}]"), "models[0].cache.mode: "),
        (demo(models="[{name: m, cache: {ttl_seconds: 0}}]"), "ttl_seconds: expected a whole number from 1"),
        (demo(models="[{name: m, cache: {stale_seconds: -1}}]"), "stale_seconds: expected a whole number"),
        (demo(models="[{name: m, cache: {least_similarity: 0.2}}]"), "a number from 0.5 to 1"),
        (demo(models="[{name: m, cache: {tll_seconds: 9}}]"), "did you mean 'ttl_seconds'?"),
        (demo(models="[{name: m, cache: on}]"), "cache: expected a mapping of mode, ttl_seconds"),
        (web(rest="cache: {scope: user}"), "projects[0].cache.scope: "),
        (web(rest="cache: {group: Bad Group}"), "projects[0].cache.group: "),
        (web("[{name: ci, cache: {mode: on}}]"), "keys[0].cache: "),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_at_its_place(text: str, problem: str) -> None:
    (found,) = problems(text)

    assert problem in found
