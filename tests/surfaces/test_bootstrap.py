"""From one command to the first completion: what a newcomer sees, in a process of its own."""

import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from completions.management.commands import serve
from llmhub.environment import SETTINGS
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
LIBRARIES = "django.db.models, django.template, channels.layers, cryptography.fernet, redis, uvicorn.config"
pytestmark = pytest.mark.sqlite

Environment = dict[str, str]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def machine(data: Path) -> Environment:
    """A machine on which nothing is set but where the hub lives and listens."""
    ours = {setting.name for setting in SETTINGS} | {"DJANGO_SETTINGS_MODULE"}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return clean | {"LLMHUB_DATA_DIR": str(data), "PORT": str(free_port())}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return machine(tmp_path / "data")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data directory after the first set-up, and what that printed."""
    data = tmp_path_factory.mktemp("first") / "data"
    run = manage(machine(data), "bootstrap")
    assert run.returncode == 0, run.stderr
    return data, run.stdout


@pytest.fixture
def set_up(first_run: tuple[Path, str], tmp_path: Path) -> str:
    """A hub that was set up before; what the set-up printed."""
    data, printed = first_run
    shutil.copytree(data, tmp_path / "data")
    return printed


def manage(environment: Environment, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def serving(environment: Environment, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """The hub in a process of its own, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", *(command or ("serve", "--bootstrap"))],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until_it_answers(process, int(environment["PORT"]))
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_until_it_answers(process: "subprocess.Popen[str]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    assert process.stdout is not None
    process.kill()
    pytest.fail(f"the hub did not start: {process.stdout.read()}")


@pytest.fixture(scope="module")
def running_hub(
    first_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """The address and process id of a hub that was set up, for tests that leave it as it is."""
    data = tmp_path_factory.mktemp("running") / "data"
    shutil.copytree(first_run[0], data)
    environment = machine(data)
    with serving(environment) as process:
        yield f"http://127.0.0.1:{environment['PORT']}", process.pid


def rss_bytes(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def test_the_printed_curl_returns_a_completion(environment: Environment) -> None:
    with serving(environment) as process:
        assert process.stdout is not None
        printed = ""
        while "llmhub serves" not in printed:
            printed += process.stdout.readline()
        curl = re.search(r"^  (curl .*)$", printed, re.M)
        assert curl is not None, printed
        answer = subprocess.run(
            [*shlex.split(curl[1]), "--silent", "--fail-with-body"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert answer.returncode == 0, answer.stdout
    assert '"content"' in answer.stdout


def test_the_printed_login_opens_the_admin(running_hub: tuple[str, int], set_up: str) -> None:
    login = dict(re.findall(r"^  (Login|Password) +(\S+)$", set_up, re.M))
    page = f"{running_hub[0]}/admin/login/"
    with requests.Session() as session:
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', session.get(page, timeout=20).text)
        assert token is not None
        form = {"username": login["Login"], "password": login["Password"], "csrfmiddlewaretoken": token[1]}
        answer = session.post(f"{page}?next=/admin/", data=form, headers={"Referer": page}, timeout=20)
    assert answer.status_code == 200
    assert answer.url.endswith("/admin/")


def test_a_second_set_up_changes_nothing_and_shows_no_secret(
    environment: Environment, set_up: str, tmp_path: Path
) -> None:
    before = dump(tmp_path)
    again = manage(environment, "bootstrap")
    assert again.returncode == 0, again.stderr
    assert dump(tmp_path) == before
    assert "Already set up" in again.stdout
    assert "sk-llmhub-" not in again.stdout
    assert "Password" not in again.stdout


def dump(tmp_path: Path) -> list[str]:
    with closing(sqlite3.connect(tmp_path / "data" / "llmhub.sqlite3")) as database:
        return list(database.iterdump())


def test_no_secret_that_was_printed_lies_readable_in_the_data_directory(set_up: str, tmp_path: Path) -> None:
    secrets = re.findall(r"^  (?:Password|API key) +(\S+)$", set_up, re.M)
    assert len(secrets) == 2
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert [secret for secret in secrets if secret.encode() in stored] == []


def test_the_key_files_are_their_owners_only(set_up: str, tmp_path: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").glob("*.key")}
    assert modes == {"secret.key": 0o600, "encryption.key": 0o600}


def test_secrets_from_the_environment_leave_no_key_files(environment: Environment, tmp_path: Path) -> None:
    given = {"LLMHUB_SECRET_KEY": "a secret key that somebody chose", "LLMHUB_ENCRYPTION_KEYS": "k" * 40}
    run = manage(environment | given, "bootstrap")
    assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "data").iterdir() if path.suffix == ".key"] == []
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_no_demo_provider_is_made_where_another_provider_exists(
    environment: Environment, set_up: str, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "data" / "llmhub.sqlite3")) as database:
        database.execute("UPDATE providers_llmprovider SET slug = 'mine', name = 'Mine'")
        database.commit()
        manage(environment, "bootstrap")
        assert database.execute("SELECT slug FROM providers_llmprovider").fetchall() == [("mine",)]


def test_a_warm_start_answers_within_five_seconds(environment: Environment, set_up: str) -> None:
    """On a machine that is too slow for that, within five times what importing the libraries takes alone."""
    told = []
    for _ in range(3):  # another try: the machine has other work in a suite
        began = time.monotonic()
        with serving(environment):
            started = time.monotonic()
        subprocess.run([sys.executable, "-c", f"import {LIBRARIES}"], check=True)
        took, bare = started - began, time.monotonic() - started
        if took < max(5, 5 * bare):
            return
        told.append(f"{took:.1f} s; importing the libraries alone {bare:.1f} s")
    pytest.fail("; ".join(told))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_hub_stays_under_150_megabytes(running_hub: tuple[str, int]) -> None:
    url, pid = running_hub
    requests.get(f"{url}/", timeout=20)
    requests.get(f"{url}/admin/login/", timeout=20)
    assert rss_bytes(pid) < 150_000_000


@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_stops_an_idle_hub_cleanly(
    environment: Environment, set_up: str, signal_number: int, status: int
) -> None:
    with serving(environment) as process:
        requests.get(f"http://127.0.0.1:{environment['PORT']}/", timeout=20)
        began = time.monotonic()
        process.send_signal(signal_number)
        assert process.wait(timeout=10) == status
        assert time.monotonic() - began < 5
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()


def test_a_taken_port_is_named_with_the_fix(environment: Environment, set_up: str) -> None:
    port = int(environment["PORT"])
    with socket.create_server(("127.0.0.1", port)):
        run = manage(environment, "serve")
    assert run.returncode == 1
    assert f"Port {port} of 127.0.0.1 is taken by another program" in run.stderr
    assert f"PORT={port + 1} make run" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_address_of_another_machine_is_refused_with_the_fix(environment: Environment) -> None:
    run = manage(environment | {"HOST": "192.0.2.1"}, "serve")
    assert run.returncode == 1
    assert "HOST=192.0.2.1 is not an address of this machine" in run.stderr


def test_the_server_does_not_name_its_software(running_hub: tuple[str, int]) -> None:
    answer = requests.get(f"{running_hub[0]}/", timeout=20)
    assert answer.status_code == 200
    assert "server" not in answer.headers


def test_djangos_own_runserver_serves_the_hub_too(environment: Environment, set_up: str) -> None:
    port = environment["PORT"]
    with serving(environment, "runserver", "--noreload", f"127.0.0.1:{port}"):
        assert requests.get(f"http://127.0.0.1:{port}/admin/login/", timeout=20).status_code == 200
        assert requests.get(f"http://127.0.0.1:{port}/static/admin/js/core.js", timeout=20).status_code == 200


@pytest.mark.postgres
@pytest.mark.redis
def test_several_processes_share_one_hub(
    environment: Environment, redis_url: str, new_database: Callable[[], str], tmp_path: Path
) -> None:
    several = environment | {
        "TMPDIR": str(tmp_path),
        "DATABASE_URL": new_database(),
        "REDIS_URL": redis_url,
        "WEB_CONCURRENCY": "2",
        "LLMHUB_SECRET_KEY": "the secret key of two processes of the suite",
        "LLMHUB_ENCRYPTION_KEYS": "the encryption key of two processes of the suite",
    }
    with serving(several) as process:
        url = f"http://127.0.0.1:{several['PORT']}"
        assert requests.get(url, timeout=30).status_code == 200
        assert_their_figures_are_summed(url)
        assert_what_died_was_doing_nothing(tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
    assert not list(tmp_path.glob("llmhub-metrics-*"))


def assert_their_figures_are_summed(url: str) -> None:
    """Each request is a connection of its own: either process may get it."""
    for _ in range(20):
        assert requests.get(f"{url}/v1/models", timeout=20).status_code == 401
    for _ in range(5):
        told = requests.get(f"{url}/metrics", timeout=20).text
        assert 'llmhub_errors_total{code="invalid_api_key",surface="v1"} 20.0' in told


def assert_what_died_was_doing_nothing(directory: Path) -> None:
    def live() -> list[Path]:
        return list(directory.glob("llmhub-metrics-*/gauge_livesum_*.db"))

    assert eventually(lambda: len(live()) == 2, seconds=START_SECONDS)  # the first serves before the second
    first, _ = live()
    os.kill(int(first.stem.rpartition("_")[2]), signal.SIGKILL)
    assert eventually(lambda: not first.exists(), seconds=START_SECONDS)


def test_figures_are_shared_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, gone = tmp_path / "given", 1 << 30  # no process has that id
    monkeypatch.setenv(serve.FIGURES, str(given))
    kept = [given / f"counter_{gone}.db", given / f"gauge_livesum_{os.getpid()}.db"]
    with serve.shared_figures():
        for figures in (*kept, given / f"gauge_livesum_{gone}.db"):
            figures.touch()
    with serve.shared_figures():
        assert os.environ[serve.FIGURES] == str(given)
    assert sorted(given.iterdir()) == kept
