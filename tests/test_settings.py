"""Settings: documented as they are, checked at start, and a wrong value names itself and the fix."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from completions.checks import settings_are_sound
from llmhub.environment import SETTINGS, Setting, database, read_all, secret_from_file

ROOT = Path(__file__).resolve().parent.parent


def start(tmp_path: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`manage.py` in a process of its own, with nothing of this one's settings."""
    ours = {setting.name for setting in SETTINGS} | {"DJANGO_SETTINGS_MODULE"}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=clean | {"LLMHUB_DATA_DIR": str(tmp_path / "data")} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_table_of_settings_is_the_code() -> None:
    documented = re.findall(
        r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", (ROOT / "docs/settings.md").read_text(), re.M
    )
    assert [tuple(row) for row in documented] == [
        (setting.name, f"`{setting.default}`" if setting.default else "", setting.meaning)
        for setting in SETTINGS
    ]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_and_example_is_valid(setting: Setting) -> None:
    setting.parse(setting.default)
    setting.parse(setting.example)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("PORT", "eight", "expected a whole number from 1 to 65535"),
        ("PORT", "0", "expected a whole number from 1 to 65535"),
        ("LLMHUB_EGRESS_ALLOW", "10.0.0.5", "'10.0.0.5' is not host:port (or host:*)"),
        ("LLMHUB_TRUSTED_ORIGINS", "hub.example.com", "is not an origin (scheme://host[:port], no path)"),
        ("LLMHUB_TIME_ZONE", "Mars/Olympus", "Mars/Olympus"),
        ("LLMHUB_LOG_LEVEL", "LOUD", "expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("LLMHUB_DEBUG", "maybe", "expected true or false"),
        ("WEB_CONCURRENCY", "none", "expected a whole number from 1 to 256"),
    ],
)
def test_a_wrong_value_names_itself_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as caught:
        read_all()
    message = str(caught.value)
    assert message.startswith(f"{name}='{value}' is not valid: ")
    assert problem in message
    assert f"Set it to something like {name}=" in message


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DATABASE_URL", "mysql://me:pa55word@host/db", "expected sqlite://, postgres:// or postgresql://"),
        ("REDIS_URL", "http://:pa55word@host", "expected redis://, rediss:// or unix://"),
    ],
)
def test_a_wrong_value_that_may_hold_a_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as caught:
        read_all()
    assert str(caught.value).startswith(f"{name}=(not shown")
    assert problem in str(caught.value)
    assert "pa55word" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_value_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "port"
    secret.write_text("9001\n")
    monkeypatch.setenv("PORT_FILE", str(secret))
    assert read_all()["PORT"] == 9001


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT_FILE", str(tmp_path / "absent"))
    with pytest.raises(ImproperlyConfigured, match=r"PORT_FILE names '.*absent', which cannot be read"):
        read_all()


def test_an_empty_value_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert read_all()["PORT"] == 8000


def test_an_embedded_hub_makes_its_secret_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "encryption.key"
    secret = secret_from_file(path, embedded=True, name="LLMHUB_ENCRYPTION_KEYS")
    assert secret_from_file(path, embedded=True, name="LLMHUB_ENCRYPTION_KEYS") == secret
    assert len(secret) >= 32
    assert "," not in secret  # the setting is a comma-separated list
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("known to all\n")
    path.chmod(0o644)
    with pytest.raises(ImproperlyConfigured, match="Run: chmod 600"):
        secret_from_file(path, embedded=True, name="LLMHUB_SECRET_KEY")


def test_a_hub_with_its_own_database_server_must_be_given_its_secrets(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="LLMHUB_SECRET_KEY is not set"):
        secret_from_file(tmp_path / "secret.key", embedded=False, name="LLMHUB_SECRET_KEY")
    assert not (tmp_path / "secret.key").exists()


def test_the_embedded_database_fsyncs_every_commit(tmp_path: Path) -> None:
    options = database("", tmp_path)["OPTIONS"]
    assert "PRAGMA synchronous=FULL" in options["init_command"]
    assert options["transaction_mode"] == "IMMEDIATE"


def test_postgresql_is_reached_through_a_pool(tmp_path: Path) -> None:
    config = database("postgres://ada:pw@db:5432/hub?sslmode=require", tmp_path)
    assert config["ENGINE"] == "django.db.backends.postgresql"
    assert config["OPTIONS"]["pool"]["max_size"] > 1
    assert config["OPTIONS"]["sslmode"] == "require"
    assert config["CONN_MAX_AGE"] == 0


def test_a_wrong_value_stops_the_start_with_its_name(tmp_path: Path) -> None:
    run = start(tmp_path, "check", PORT="eight")
    assert run.returncode != 0
    assert "PORT='eight' is not valid" in run.stderr


def test_several_processes_on_sqlite_without_redis_are_refused(tmp_path: Path) -> None:
    run = start(tmp_path, "serve", WEB_CONCURRENCY="2")
    assert run.returncode == 1
    assert "llmhub.E001" in run.stderr
    assert "HINT: Set DATABASE_URL=postgres://…, or unset WEB_CONCURRENCY." in run.stderr
    assert "llmhub.E002" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_encryption_key_that_is_also_the_secret_key_is_refused(tmp_path: Path) -> None:
    same = "one secret for everything is one secret too few"
    run = start(tmp_path, "serve", LLMHUB_SECRET_KEY=same, LLMHUB_ENCRYPTION_KEYS=same)
    assert run.returncode == 1
    assert "llmhub.E003" in run.stderr
    assert same not in run.stderr


def test_manage_check_warns_about_a_risky_setting(tmp_path: Path) -> None:
    run = start(tmp_path, "check", LLMHUB_SECRET_KEY="short")
    assert run.returncode == 0
    assert "llmhub.W001" in run.stderr


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, []),
        ({"LLMHUB_ENCRYPTION_KEYS": ["k" * 40, "short"]}, ["llmhub.W002"]),
        ({"HOST": "10.0.0.1", "LLMHUB_LISTENS_ON_LOOPBACK": False, "DEBUG": True}, ["llmhub.W003"]),
        ({"HOST": "10.0.0.1", "LLMHUB_LISTENS_ON_LOOPBACK": False}, []),
        ({"HOST": "0.0.0.0", "LLMHUB_LISTENS_ON_LOOPBACK": False}, ["llmhub.W004"]),
        ({"WEB_CONCURRENCY": 2, "LLMHUB_EMBEDDED": False, "REDIS_URL": "redis://r"}, []),
        ({"WEB_CONCURRENCY": 2, "LLMHUB_EMBEDDED": False}, ["llmhub.E002"]),
        ({"WEB_CONCURRENCY": 2, "REDIS_URL": "redis://r"}, ["llmhub.E001"]),
    ],
)
def test_settings_are_judged_together(settings: Settings, values: dict[str, Any], found: list[str]) -> None:
    sound = {
        "HOST": "127.0.0.1",
        "LLMHUB_LISTENS_ON_LOOPBACK": True,
        "LLMHUB_EMBEDDED": True,
        "WEB_CONCURRENCY": 1,
        "REDIS_URL": "",
        "DEBUG": False,
        "LLMHUB_ENCRYPTION_KEYS": ["k" * 40],
        "ALLOWED_HOSTS": ["localhost", "127.0.0.1", "[::1]", values.get("HOST", "127.0.0.1")],
    }
    for name, value in (sound | values).items():
        setattr(settings, name, value)
    assert [message.id for message in settings_are_sound()] == found
