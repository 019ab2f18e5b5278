"""What Prometheus is told. Labels are names that staff gave; nothing of a caller's text becomes one.

Several server processes of one machine share their figures through files in PROMETHEUS_MULTIPROC_DIR, which
`manage.py serve` sets; `/metrics` of any of them then tells the sum.
"""

import os
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from providers import breaker

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
CONTENT_TYPE = CONTENT_TYPE_LATEST

_registry = CollectorRegistry()

REQUESTS = Counter(
    "llmhub_requests",
    "Calls that reached their end, by the state of their ledger row.",
    ["operation", "provider", "model", "state"],
    registry=_registry,
)
TOKENS = Counter(
    "llmhub_tokens", "Tokens used, as billed.", ["kind", "provider", "model"], registry=_registry
)
COST = Counter(
    "llmhub_cost_usd", "US dollars of calls with a price.", ["provider", "model"], registry=_registry
)
DURATION = Histogram(
    "llmhub_request_seconds",
    "From admission to settlement.",
    ["operation"],
    buckets=SECONDS,
    registry=_registry,
)
FIRST_TOKEN = Histogram(
    "llmhub_time_to_first_token_seconds",
    "Of streams: from admission to the first content.",
    ["provider", "model"],
    buckets=SECONDS,
    registry=_registry,
)
OVERHEAD = Histogram(
    "llmhub_overhead_seconds",
    "What the hub added to its upstreams' time.",
    ["operation"],
    buckets=SHORT_SECONDS,
    registry=_registry,
)
CACHE = Counter("llmhub_cache", "Answers by what the cache did.", ["result"], registry=_registry)
UPSTREAM_ERRORS = Counter(
    "llmhub_upstream_errors", "Upstream calls that failed.", ["provider", "reason"], registry=_registry
)
ERRORS = Counter("llmhub_errors", "Errors told to callers.", ["surface", "code"], registry=_registry)
IN_FLIGHT = Gauge("llmhub_in_flight", "Calls that run now.", registry=_registry, multiprocess_mode="livesum")
COMMIT = Histogram(
    "llmhub_ledger_commit_seconds",
    "Of the ledger's transactions.",
    buckets=SHORT_SECONDS,
    registry=_registry,
)
LEDGER_AWAY = Gauge(
    "llmhub_ledger_away",
    "1 while the ledger cannot be written.",
    registry=_registry,
    multiprocess_mode="livemax",
)


class _Circuits(Collector):
    """The state of every target's circuit that is not at rest: 1 half open, 2 open. Of this process."""

    def collect(self) -> list[GaugeMetricFamily]:
        help_text = "Circuits of upstreams: 0 closed after failures, 1 half open, 2 open."
        family = GaugeMetricFamily("llmhub_circuit", help_text, labels=["provider", "model"])
        for provider, model, circuit in breaker.circuits():
            family.add_metric([provider, model], list(breaker.Circuit).index(circuit))
        return [family]


_registry.register(_Circuits())

requests = lru_cache(maxsize=4096)(REQUESTS.labels)
tokens = lru_cache(maxsize=4096)(TOKENS.labels)
cost = lru_cache(maxsize=4096)(COST.labels)
duration = lru_cache(maxsize=16)(DURATION.labels)
first_token = lru_cache(maxsize=4096)(FIRST_TOKEN.labels)
overhead = lru_cache(maxsize=16)(OVERHEAD.labels)
cache = lru_cache(maxsize=16)(CACHE.labels)


def exposition() -> bytes:
    """All of it in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return bytes(generate_latest(_registry))
    shared = CollectorRegistry()
    multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    shared.register(_Circuits())
    return bytes(generate_latest(shared))
