"""Configuration files as tests write them."""

from pathlib import Path
from textwrap import dedent

import pytest

from completions.config import ConfigRefused, Difference, apply_config, load

SECRET = "sk-canary-0123456789"
KEY = f"sk-llmhub-abcdefABCDEF-{'x' * 42}1"
OTHER_KEY = f"sk-llmhub-ghijklGHIJKL-{'y' * 42}2"

HUB = """\
providers:
  - slug: local
    type: openai_compatible
    base_url: http://127.0.0.1:9200/v1
    api_key: ${LOCAL_API_KEY}
    models:
      - gemma-3-270m
      - {name: gpt-4o, public_name: big, context_window: 128000, max_output: 16384, prices: {prompt: 2.50, cached: 1.25, completion: 10.00}}   # USD per million tokens
    default_model: gemma-3-270m
    default_config: {temperature: 0.7}
    timeouts: {connect: 5, first_token: 60, idle: 30, total: 600}
projects:
  - slug: web
    name: Web shop
    keys:
      - {name: ci, secret: "${CI_KEY}"}
"""  # noqa: E501 - the issue's own example, as it stands there


def apply(text: str, **options: bool) -> Difference:
    return apply_config(load(dedent(text), "hub.yaml", Path()), **options)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigRefused) as refused:
        apply(text)
    return [str(problem) for problem in refused.value.problems]


def demo(rest: str = "", models: str = "[m]") -> str:
    """A file with one valid provider and, as flow YAML, more of its values."""
    return f"providers:\n  - {{slug: demo, type: demo, models: {models}{', ' if rest else ''}{rest}}}\n"


def web(keys_text: str = "[]", rest: str = "") -> str:
    return f"projects:\n  - {{slug: web, keys: {keys_text}{', ' if rest else ''}{rest}}}\n"
