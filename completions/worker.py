"""The worker: runs every periodic job of the hub when it is due.

A thread of the server where the hub is embedded (`start`, `stop`); else `manage.py worker`, as many as you
like.
"""

import logging
import threading

from django.db import DatabaseError, close_old_connections, connections

from completions import alerts, jobs, prune, rollups

logger = logging.getLogger(__name__)

JOBS = (alerts, prune, rollups)  # importing them registers their jobs
POLL_SECONDS = 2.0
AWAY_SECONDS = 5.0  # between looks at a database that is away
FIRST_WAIT_SECONDS = 5.0  # a server starts to serve first, then to work
STOP_SECONDS = 8.0

_thread: threading.Thread | None = None


def start(first_wait: float = FIRST_WAIT_SECONDS) -> None:
    """Work in a thread of this process until `stop`. Starting twice changes nothing."""
    global _thread
    if _thread is not None and _thread.is_alive():
        return
    jobs.stopping.clear()
    _thread = threading.Thread(target=_work, args=(first_wait,), name="llmhub-worker", daemon=True)
    _thread.start()


def stop() -> None:
    """End the thread; a job that runs is asked to return, and its lease ends by itself if it does not."""
    global _thread
    jobs.stopping.set()
    if _thread is not None:
        _thread.join(STOP_SECONDS)
        if _thread.is_alive():
            logger.warning("a job did not end within %.0f s; it will be run again", STOP_SECONDS)
    _thread = None


def _work(first_wait: float) -> None:
    if not jobs.stopping.wait(first_wait):
        run_until_stopped()


def run_until_stopped() -> None:
    """Run jobs as they fall due until `jobs.stopping` is set. A database that is away is waited for."""
    away = False
    try:
        while not jobs.stopping.is_set():
            try:
                close_old_connections()
                ran = jobs.run_due()
                pause, away = (0.0 if ran else POLL_SECONDS), _back(away)
            except DatabaseError as error:
                pause, away = AWAY_SECONDS, _lost(away, error)
            except Exception:  # a fault of ours must not end all jobs
                logger.exception("the worker failed; it goes on")
                pause = AWAY_SECONDS
            jobs.stopping.wait(pause)
    finally:
        connections.close_all()


def _back(away: bool) -> bool:
    if away:
        logger.warning("the database is back, the worker goes on")
    return False


def _lost(away: bool, error: DatabaseError) -> bool:
    if not away:
        logger.error("the worker cannot use the database, and tries again: %s", error)
    connections.close_all()
    return True
