"""Fixtures of the tests of completions."""

from collections.abc import Iterator

import pytest

from completions import keys
from tests.completions.config_files import KEY, SECRET


@pytest.fixture
def config_secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variables of the configuration files, and a pepper that no other test made."""
    monkeypatch.setenv("LOCAL_API_KEY", SECRET)
    monkeypatch.setenv("CI_KEY", KEY)
    keys.forget_pepper()
    yield
    keys.forget_pepper()
