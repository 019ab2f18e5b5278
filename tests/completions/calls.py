"""Rows of the ledger, as they are after a call."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.utils import timezone

from completions.ids import first_id
from completions.ledger import new_id
from completions.models import Attempt, Completion, CompletionContent, Project, State
from providers import pricing
from providers.models import LanguageModel, ModelPrice
from providers.types import Price, Rate

PRICE = Price(Rate(Decimal("2.5")), Rate(Decimal(10)), source="override 2026-01-01")
COST = 75_000  # of the tokens below at PRICE, in nano-dollars
METERED: dict[str, Any] = {
    "provider_slug": "upstream", "model": "test-model", "state": State.OK, "prompt_tokens": 10,
    "completion_tokens": 5, "cost_nano_usd": COST, "prices": pricing.dump(PRICE),
    "price_source": PRICE.source,
}  # fmt: skip
UNPRICED: dict[str, Any] = {"cost_nano_usd": None, "prices": "", "price_source": ""}


def make_call(moment: datetime | None = None, *, project: str = "web", **fields: Any) -> Completion:
    """A finished call of 10 prompt and 5 output tokens at PRICE."""
    values = METERED | {
        "id": first_id(moment) if moment else new_id(), "request_id": "r1", "surface": "api",
        "requested_model": "test-model", "created_at": moment or timezone.now(), "attempts": 1,
    }  # fmt: skip
    owner, _ = Project.objects.get_or_create(slug=project, defaults={"name": project.capitalize()})
    return Completion.objects.create(project=owner, **(values | fields))


def make_attempt(call: Completion, number: int = 1, **fields: Any) -> Attempt:
    values = METERED | {"started_ms": 0, "latency_ms": 100}
    return Attempt.objects.create(completion=call, number=number, **(values | fields))


def make_content(call: Completion, **fields: Any) -> CompletionContent:
    values = {"request": '{"messages":[]}', "response": '{"role":"assistant","content":"Hello!"}'}
    return CompletionContent.objects.create(completion=call, expires_at=timezone.now(), **(values | fields))


def set_price(model: str, prompt: str, completion: str, valid_from: str = "2026-01-01") -> ModelPrice:
    row = LanguageModel.objects.get(name=model)
    return ModelPrice.objects.create(
        model=row, valid_from=valid_from, prompt=Decimal(prompt), completion=Decimal(completion)
    )
