"""Alerts of budgets, posted to their webhooks: signed, checked at the connect, and tried until they arrive.

What is posted (JSON):
    {"id", "type": "budget.threshold", "created_at", "budget", "project", "key", "end_user", "threshold",
     "amount", "spent", "hard", "period": {"kind", "start", "end"}}
Amounts are US dollars as text, times ISO 8601 in UTC, `threshold` per cent. The header
`X-LLMHub-Signature: t=<unix>,v1=<hex>` holds HMAC-SHA256, under the budget's webhook secret, of "<t>.<body>".
An alert may arrive twice (the answer to the first was lost): `id` stays the same.
"""

import hashlib
import hmac
import json
import logging
import socket
import time
from datetime import timedelta
from typing import Any

import requests
from django.utils import timezone
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from completions.jobs import job, time_left
from completions.models import BudgetAlert
from completions.webhooks import webhook_problem
from providers import egress, pricing
from providers.errors import DecryptionError, UpstreamUnreachable
from providers.types import JSON

logger = logging.getLogger(__name__)

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
MOST_TRIES = 10
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=6)
SIGNATURE = "X-LLMHub-Signature"


class NotDelivered(Exception):
    """Why an alert did not arrive, in words that name neither the webhook's path nor its secret."""


@job("alerts", every_seconds=10, rests=1)
def deliver_due(state: JSON) -> bool:
    """Post every alert that is due. A budget whose webhook fails waits for the next run with all it has."""
    failed: set[Any] = set()
    waiting = BudgetAlert.objects.filter(delivered_at=None).select_related(
        "window__budget__project", "window__budget__api_key"
    )
    while time_left():
        due = waiting.filter(deliver_at__lte=timezone.now()).exclude(window__budget__in=failed)
        alert = due.order_by("deliver_at", "pk").first()
        if alert is None:
            return False
        if not deliver(alert):
            failed.add(alert.window.budget_id)
    return True


def deliver(alert: BudgetAlert) -> bool:
    """Post one alert, and note what became of it. Returns whether it needs no further try."""
    now = timezone.now()
    budget = alert.window.budget
    if not budget.webhook_url or not budget.enabled:
        reason = "The budget has no webhook any more." if budget.enabled else "The budget is disabled."
        _note(alert, deliver_at=None, last_error=reason)
        return True
    try:
        post(budget.webhook_url, payload(alert), budget.webhook_secret)
    except (NotDelivered, DecryptionError) as error:
        tries = alert.tries + 1
        again = now + pause_after(tries) if tries < MOST_TRIES else None
        logger.warning(
            "alert %s of budget %s was not delivered (try %d of %d): %s",
            alert.pk, budget.pk, tries, MOST_TRIES, error,
        )  # fmt: skip
        _note(alert, tries=tries, deliver_at=again, last_error=str(error)[:300])
        return False
    _note(alert, tries=alert.tries + 1, delivered_at=timezone.now(), deliver_at=None, last_error="")
    return True


def _note(alert: BudgetAlert, **facts: Any) -> None:
    BudgetAlert.objects.filter(pk=alert.pk).update(**facts)


def pause_after(tries: int) -> timedelta:
    """1, 2, 4 … minutes, 6 hours at most."""
    return min(FIRST_PAUSE * float(2 ** (tries - 1)), LONGEST_PAUSE)


def payload(alert: BudgetAlert) -> JSON:
    """What the webhook is told."""
    window, budget = alert.window, alert.window.budget
    return {
        "id": str(alert.pk),
        "type": "budget.threshold",
        "created_at": alert.created_at.isoformat(),
        "budget": str(budget.pk),
        "project": budget.project.slug,
        "key": budget.api_key.name if budget.api_key else None,
        "end_user": window.subject or None,
        "threshold": alert.threshold,
        "amount": _dollars(alert.amount_nano),
        "spent": _dollars(alert.spent_nano),
        "hard": budget.hard,
        "period": {
            "kind": budget.period,
            "start": window.starts_at.isoformat(),
            "end": window.ends_at.isoformat() if window.ends_at else None,
        },
    }


def _dollars(nano: int) -> str:
    return format(pricing.usd(nano).normalize(), "f")


def signature(secret: str, body: bytes, at: int) -> str:
    """The header's value. `at`: Unix time; a receiver refuses what is older than a few minutes."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def post(url: str, content: JSON, secret: str) -> None:
    """Post JSON, signed where there is a secret. Any 2xx is a success. Raises NotDelivered."""
    if problem := webhook_problem(url):
        raise NotDelivered(problem)
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "llmhub"}
    if secret:
        headers[SIGNATURE] = signature(secret, body, int(time.time()))
    with _session() as session:
        try:
            answer = session.post(
                url,
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,  # its body is not read
            )
            status = answer.status_code
        except UpstreamUnreachable as error:
            raise NotDelivered(str(error)) from None
        except (requests.RequestException, OSError) as error:  # whose text holds the whole address
            raise NotDelivered(_reason(error)) from None
    if not 200 <= status < 300:
        moved = "; redirects are not followed" if 300 <= status < 400 else ""
        raise NotDelivered(f"The webhook answered {status}{moved}.")


def _reason(error: Exception) -> str:
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (requests.exceptions.SSLError, "The webhook's TLS certificate is not accepted."),
        (requests.ConnectTimeout, f"No connection to the webhook within {CONNECT_SECONDS:.0f} s."),
        (requests.ReadTimeout, f"No answer of the webhook within {ANSWER_SECONDS:.0f} s."),
        (requests.ConnectionError, "The webhook cannot be reached."),
    )
    found = next((text for kind, text in reasons if isinstance(error, kind)), None)
    return found or f"The webhook cannot be called ({type(error).__name__})."


def _session() -> requests.Session:
    """A session whose connections lead only where the hub may call; no proxy, no .netrc, no cookie kept."""
    session = requests.Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, CheckedAdapter())
    return session


class CheckedAdapter(HTTPAdapter):
    """Resolves a name once, judges the address, and connects to that very address."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _CheckedPool, "https": _CheckedTLSPool}


def _connect(connection: HTTPConnection) -> socket.socket:
    """A socket to the first address that answers. Raises UpstreamUnreachable if any may not be called."""
    host, port = connection._dns_host, connection.port
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(connection.host, connection, reason) from error
    for *_, address in found:
        egress.check_address(host, port, str(address[0]))
    problem: Exception | None = None
    for *_, address in found:
        try:
            return socket.create_connection((str(address[0]), port), CONNECT_SECONDS)
        except TimeoutError:
            problem = ConnectTimeoutError(connection, "timed out")
        except OSError as error:
            problem = NewConnectionError(connection, f"cannot connect: {error}")
    raise problem or NewConnectionError(connection, "no address")


class _CheckedConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _CheckedTLSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _CheckedPool(HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _CheckedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedTLSConnection
