"""Periodic jobs: one runner at a time, retried, and never the end of the worker."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from completions import jobs, worker
from completions.jobs import run_due
from completions.models import Job
from providers.types import JSON
from tests.waiting import eventually

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _only_jobs_of_the_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jobs, "_registered", {})
    jobs.stopping.clear()
    yield
    jobs.stopping.clear()


def counting(every_seconds: float = 60.0, name: str = "counting") -> list[int]:
    """Registers a job that counts its runs, in its state and in the list returned."""
    runs: list[int] = []

    @jobs.job(name, every_seconds)
    def count(state: JSON) -> None:
        state["runs"] = state.get("runs", 0) + 1
        runs.append(state["runs"])

    return runs


def make_due(name: str = "counting") -> None:
    Job.objects.filter(name=name).update(due_at=timezone.now())


def test_a_job_runs_when_it_is_due_and_not_before() -> None:
    runs = counting(every_seconds=60)

    assert run_due() == ["counting"]
    assert run_due() == []
    make_due()
    assert run_due() == ["counting"]
    assert runs == [1, 2]  # and it remembers


def test_a_job_with_more_to_do_runs_again_at_once() -> None:
    left = [True, True, False]
    jobs.job("backlog", 3600)(lambda state: left.pop(0))

    assert [run_due() for _ in range(4)] == [["backlog"], ["backlog"], ["backlog"], []]


def test_a_job_that_another_process_runs_is_left_alone() -> None:
    runs = counting()
    Job.objects.create(
        name="counting",
        due_at=timezone.now(),
        lease_owner="elsewhere:1:x",
        leased_until=timezone.now() + timedelta(seconds=60),
    )

    assert run_due() == []
    assert runs == []


def test_the_job_of_a_runner_that_died_is_taken_over_when_its_lease_ends() -> None:
    counting()
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.create(name="counting", due_at=past, lease_owner="dead:1:x", leased_until=past)

    assert run_due() == ["counting"]


def test_a_lease_that_could_not_be_given_back_does_not_keep_its_own_runner_out() -> None:
    owners = []
    jobs.job("orphan", 60)(lambda state: owners.append(Job.objects.get(name="orphan").lease_owner))
    run_due()
    later = timezone.now() + timedelta(seconds=200)
    Job.objects.update(due_at=timezone.now(), lease_owner=owners[0], leased_until=later)

    assert run_due() == ["orphan"]


def test_a_runner_that_lost_its_lease_changes_nothing() -> None:
    @jobs.job("slow", 60)
    def slow(state: JSON) -> None:
        state["mine"] = True
        Job.objects.filter(name="slow").update(lease_owner="other:2:y", state={"theirs": True})

    run_due()

    row = Job.objects.get(name="slow")
    assert (row.lease_owner, row.state) == ("other:2:y", {"theirs": True})


def test_a_job_that_fails_is_tried_again_later_and_later_and_says_why() -> None:
    broken = [True]

    @jobs.job("shaky", 60)
    def shaky(state: JSON) -> None:
        state["half"] = "done"
        if broken:
            raise OSError("the disk is full")

    pauses = []
    for _ in range(3):
        Job.objects.filter(name="shaky").update(due_at=timezone.now())
        assert run_due() == ["shaky"]
        row = Job.objects.get(name="shaky")
        pauses.append(round((row.due_at - timezone.now()).total_seconds(), -1))
    assert pauses == [120, 240, 480]
    assert row.last_error == "OSError: the disk is full"
    assert "half" not in row.state  # what a failed run noted is not kept

    broken.clear()
    make_due("shaky")
    run_due()
    row.refresh_from_db()
    assert (row.last_error, row.state) == ("", {"half": "done"})


def test_a_failing_job_does_not_stop_the_next() -> None:
    jobs.job("broken", 60)(lambda state: 1 / 0 > 0)
    runs = counting()

    assert run_due() == ["broken", "counting"]
    assert runs == [1]


@pytest.mark.parametrize("column", ["due_at", "leased_until"])
def test_a_clock_that_stepped_back_stops_no_job(column: str) -> None:
    counting(every_seconds=60)
    run_due()
    make_due()
    Job.objects.update(**{column: timezone.now() + timedelta(days=2)})

    assert run_due() == ["counting"]


def test_a_job_rests_in_proportion_to_what_it_took() -> None:
    jobs.job("heavy", 1)(lambda state: time.sleep(0.2))

    run_due()

    pause = Job.objects.get(name="heavy").due_at - timezone.now()
    assert pause > timedelta(seconds=3)


def test_time_is_left_until_the_run_is_long_or_the_process_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    @jobs.job("long", 60)
    def long(state: JSON) -> None:
        left.append(jobs.time_left())
        jobs.stopping.set()
        left.append(jobs.time_left())

    run_due()
    monkeypatch.setattr(jobs, "RUN_SECONDS", 0)
    jobs.stopping.clear()
    jobs.job("long", 60)(lambda state: left.append(jobs.time_left()))
    make_due("long")
    run_due()

    assert left == [True, False, False]
    assert jobs.time_left()  # a command may take its time


@pytest.mark.django_db(transaction=True)
def test_of_many_threads_one_runs_a_job() -> None:
    started: list[str] = []

    @jobs.job("single", 60)
    def single(state: JSON) -> None:
        started.append(threading.current_thread().name)
        time.sleep(0.2)

    barrier = threading.Barrier(6)

    def race() -> None:
        barrier.wait()
        try:
            run_due()
        finally:
            connection.close()

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(started) == 1


def test_the_command_runs_what_is_due_once(capsys: pytest.CaptureFixture[str]) -> None:
    counting()

    call_command("worker", "--once")
    call_command("worker", "--once")

    assert capsys.readouterr().out.splitlines() == ["Ran: counting.", "Nothing was due."]


def test_the_worker_ends_in_order_on_sigterm_even_while_its_database_is_away(
    tmp_path: Path, repository: Path
) -> None:
    environment = os.environ | {"LLMHUB_DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "llmhub.settings"}
    environment.pop("DATABASE_URL", None)
    with subprocess.Popen(
        [sys.executable, "manage.py", "worker"],
        cwd=repository,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "The worker runs. Ctrl-C ends it.\n"
        assert "the worker cannot use the database" in process.stderr.readline()  # it has no tables yet
        begun = time.monotonic()
        process.terminate()
        process.communicate(timeout=20)

    assert process.returncode == 0
    assert time.monotonic() - begun < 10


@pytest.mark.django_db(transaction=True)
def test_the_thread_waits_works_and_stops_at_once() -> None:
    runs = counting()

    worker.start(first_wait=0.3)
    worker.start(first_wait=0.0)  # it runs already
    assert runs == []
    assert eventually(lambda: bool(runs), seconds=10)
    begun = time.monotonic()
    worker.stop()

    assert runs == [1]
    assert time.monotonic() - begun < 3
    assert "llmhub-worker" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_logged_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "AWAY_SECONDS", 0.02)
    runs = counting()
    with connection.schema_editor() as editor:
        editor.alter_db_table(Job, "completions_job", "away")
    try:
        with caplog.at_level(logging.WARNING):
            worker.start(first_wait=0.0)
            time.sleep(0.3)  # many tries
            with connection.schema_editor() as editor:
                editor.alter_db_table(Job, "away", "completions_job")
            assert eventually(lambda: bool(runs), seconds=10)
    finally:
        worker.stop()

    assert runs == [1]
    messages = [record.message for record in caplog.records if record.name == "completions.worker"]
    assert [message[:30] for message in messages] == [
        "the worker cannot use the data",
        "the database is back, the work",
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("embedded", [True, False])
def test_an_embedded_hub_works_by_itself_and_others_leave_it_to_workers(
    settings: Settings, request: pytest.FixtureRequest, embedded: bool
) -> None:
    settings.LLMHUB_EMBEDDED = embedded
    request.getfixturevalue("live_hub")

    assert ("llmhub-worker" in {thread.name for thread in threading.enumerate()}) is embedded
