"""What is locked for the Node.js clients may be installed from anywhere."""

import json
from typing import Any

import pytest

from tests.outside import NODE_CLIENTS


@pytest.fixture(scope="module")
def locked() -> dict[str, Any]:
    packages: dict[str, Any] = json.loads((NODE_CLIENTS / "package-lock.json").read_text())["packages"]
    return packages


def test_no_package_names_the_registry_it_came_from(locked: dict[str, Any]) -> None:
    assert [name for name, package in locked.items() if "resolved" in package] == []


def test_every_package_has_its_checksum(locked: dict[str, Any]) -> None:
    assert [name for name, package in locked.items() if name and "integrity" not in package] == []


def test_the_lock_is_of_what_is_asked_for(locked: dict[str, Any]) -> None:
    asked = json.loads((NODE_CLIENTS / "package.json").read_text())["dependencies"]
    assert locked[""]["dependencies"] == asked
