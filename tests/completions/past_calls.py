"""Calls that are over, as rows: for tests of what is made of them later."""

import secrets
from datetime import datetime
from typing import Any

from completions.ids import first_id
from completions.models import Completion, Project, State


def make_call(project: Project, at: datetime, **facts: Any) -> Completion:
    """A call begun at `at`: of 10 and 5 tokens, for 1,000 nano-dollars, unless told otherwise."""
    values: dict[str, Any] = {
        "id": type(first_id(at))(int=first_id(at).int | secrets.randbits(70)),
        "request_id": secrets.token_hex(8),
        "surface": "api",
        "requested_model": "gpt-4o",
        "provider_slug": "openai",
        "model": "gpt-4o",
        "state": State.OK,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_nano_usd": 1000,
        "created_at": at,
        "finished_at": at,
        "latency_ms": 100,
    }
    return Completion.objects.create(project=project, **(values | facts))
