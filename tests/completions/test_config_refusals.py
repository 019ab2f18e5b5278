"""Configuration as code: what is refused, with its place; and how secrets get in."""

from pathlib import Path

import pytest

from completions.config import apply_config, load
from providers.models import LLMProvider
from tests.completions.config_files import SECRET, apply, demo, problems, web

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("config_secrets")]


class TestARefusal:
    def test_names_file_line_path_and_what_was_meant(self) -> None:
        [problem] = problems("providers:\n  - slug: demo\n    type: demo\n    modles: [m]\n    models: [m]\n")
        assert problem.startswith("hub.yaml:4: providers[0].modles: unknown key; did you mean 'models'?")
        assert "Allowed here: slug, name, type" in problem

    def test_names_every_problem_at_once(self) -> None:
        found = problems(
            """\
            providers:
              - slug: Bad Slug
                type: opnai
                models:
                  - {name: a, prices: {prompt: much, completion: -1}}
                  - 12
                timeouts: {conect: 3, total: soon, idle: 0}
                default_config: {model: x}
                enabled: 3
              - slug: two
                type: openai
                models: [b]
                default_model: c
            """
        )
        assert [problem.split(": ")[:2] for problem in found] == [
            ["hub.yaml:2", "providers[0].slug"],
            ["hub.yaml:3", "providers[0].type"],
            ["hub.yaml:5", "providers[0].models[0].prices.prompt"],
            ["hub.yaml:5", "providers[0].models[0].prices.completion"],
            ["hub.yaml:6", "providers[0].models[1]"],
            ["hub.yaml:7", "providers[0].timeouts.conect"],
            ["hub.yaml:7", "providers[0].timeouts.total"],
            ["hub.yaml:7", "providers[0].timeouts.idle"],
            ["hub.yaml:9", "providers[0].enabled"],
            ["hub.yaml:10", "providers[1].api_key"],
            ["hub.yaml:13", "providers[1].default_model"],
        ]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("providers: [{slug: a, type: opnai, models: [m]}]", "did you mean 'openai'?"),
            (
                "providers: [{slug: a, type: demo, models: []}]",
                "providers[0].models: Name at least one model",
            ),
            ("providers: [{slug: a, type: demo}]", "providers[0].models: Name at least one model"),
            (
                "providers: [{slug: a, type: openai, models: [m]}]",
                "providers[0].api_key: Providers of type openai",
            ),
            (
                "providers: [{slug: a, type: openai_compatible, models: [m]}]",
                "providers[0].base_url: Providers",
            ),
            (
                demo("default_config: {stream: true}"),
                "providers[0].default_config: stream cannot be a default",
            ),
            (demo("default_config: 3"), "providers[0].default_config: expected a mapping"),
            (demo("default_config: {when: 2026-01-01}"), "providers[0].default_config: 2026-01-01 cannot be"),
            (
                demo("timeouts: 3"),
                "providers[0].timeouts: expected a mapping of connect, first_token, idle, total",
            ),
            (demo("name: 3"), "providers[0].name: expected text, got 3; put it in quotes"),
            (demo("priority: true"), "providers[0].priority: expected a whole number from 0 on, got true"),
            (demo("default_model: n"), "providers[0].default_model: 'n' is not among"),
            (demo("api_key: 123456789"), "providers[0].api_key: expected text; put it in quotes"),
            (
                demo(models="[m, m]"),
                "providers[0].models[1].name: 'm' is given twice; the first is at hub.yaml:2",
            ),
            (
                demo(models="[{name: a, public_name: x}, {name: b, public_name: x}]"),
                "providers[0].models[1]: ",
            ),
            (demo(models="[{name: m, max_output: 0}]"), "max_output: expected a number of tokens from 1 on"),
            (
                demo(models="[{name: m, prices: {prompt: 1}}]"),
                "prices.completion: missing: every price needs it",
            ),
            (demo(models="{a: b}"), "providers[0].models: expected a list, got a mapping; write [] for none"),
            (web("[{name: a, expires: soon}]"), "projects[0].keys[0].expires: expected a day or a time"),
            (web(rest="members: [nobody]"), "projects[0].members: no such user: nobody"),
            ("project: []", "project: unknown key; did you mean 'projects'?"),
            ("providers:", "providers: expected a list, got nothing; write [] for none"),
            ("[]", "expected sections"),
            ("", "hub.yaml:1: the file is empty"),
            ("a: {b", "not valid YAML"),
            ("a: b\n---\nc: d", "not valid YAML"),
            ("providers: !!python/object/apply:os.getcwd []", "hub.yaml:1: providers: the tag"),
            ("providers: []\nproviders: []", "hub.yaml:2: providers: given twice; the first is in line 1"),
            ("providers: &a [*a]", "an alias repeats itself"),
            ("true: []", "'true' is not a name"),
            (demo("name: 2026-02-31"), "'2026-02-31' is not a valid value"),
        ],
    )
    def test_says_what_is_wrong(self, text: str, expected: str) -> None:
        assert expected in "\n".join(problems(text))

    def test_changes_nothing_at_all(self) -> None:
        problems(f"{demo()}{web('[{name: ci, secret: bad}]')}")
        assert not LLMProvider.objects.exists()

    def test_never_shows_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WHOLE", SECRET)
        found = problems(
            f"providers: [{{slug: a, type: '${{WHOLE}}', name: [{SECRET}], base_url: 'x${{WHOLE}}',"
            " api_key: '${WHOLE}', models: ['a ${WHOLE}']}, {slug: '${WHOLE} ', type: demo, models: [m]}]"
        )
        assert SECRET not in "\n".join(found)


class TestSubstitution:
    def test_reads_a_file_beside_the_configuration_without_its_last_newline(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(f"{SECRET}\n")
        apply_config(load(demo('api_key: "${file:key}"'), "hub.yaml", tmp_path))
        assert LLMProvider.objects.get().api_key == SECRET

    def test_fills_in_a_part_of_a_text_and_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NUMBER", "7")
        apply(demo('priority: "${NUMBER}", name: "no. ${NUMBER}", default_config: {stop: ["${NUMBER}"]}'))
        row = LLMProvider.objects.get()
        assert (row.priority, row.name, row.default_config) == (7, "no. 7", {"stop": ["7"]})

    def test_leaves_an_escaped_dollar_alone(self) -> None:
        apply(demo('name: "$${HOME} costs $5"'))
        assert LLMProvider.objects.get().name == "${HOME} costs $5"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("${NOT_SET_ANYWHERE}", "the environment variable NOT_SET_ANYWHERE is not set"),
            ("${EMPTY}", "the environment variable EMPTY is empty"),
            ("${file:absent}", "the file absent cannot be read"),
            ("${file:}", "names no file"),
            ("${a-b}", "names neither a variable"),
            ("${OPEN", "no closing"),
        ],
    )
    def test_that_fails_is_a_problem_with_its_place(
        self, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EMPTY", "")
        [problem] = problems(demo(f'api_key: "{value}"'))
        assert problem.startswith("hub.yaml:2: providers[0].api_key: ")
        assert expected in problem
