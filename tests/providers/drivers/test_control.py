"""Listing models and testing keys."""

import pytest

from providers import egress
from providers.drivers.anthropic import AnthropicDriver
from providers.drivers.openai import OpenAIDriver
from providers.errors import (
    UpstreamUnreachable,
)
from providers.types import (
    ProviderType,
)
from tests.fakes import (
    FakeUpstream,
    refused_url,
)
from tests.providers.drivers.calls import KEY, target


async def test_models_are_listed(upstream: FakeUpstream) -> None:
    upstream.models, upstream.key = ["b", "a"], KEY
    assert [info.name for info in await OpenAIDriver().list_models(target(upstream).endpoint)] == ["b", "a"]


async def test_a_good_key_is_valid(upstream: FakeUpstream) -> None:
    upstream.key = KEY
    outcome = await OpenAIDriver().validate(target(upstream).endpoint)
    assert (outcome.ok, outcome.models, outcome.auth_failed) == (True, 1, False)
    assert outcome.message == "Connected; 1 model offered."


async def test_a_bad_key_is_not(upstream: FakeUpstream) -> None:
    upstream.key = "another"
    outcome = await OpenAIDriver().validate(target(upstream).endpoint)
    assert (outcome.ok, outcome.auth_failed) == (False, True)
    assert "does not accept our key (401)" in outcome.message


async def test_a_wrong_base_url_says_so(upstream: FakeUpstream) -> None:
    outcome = await OpenAIDriver().validate(target(upstream.url + "/v2").endpoint)
    assert not outcome.ok
    assert "Check the base URL" in outcome.message


async def test_an_unreachable_provider_is_an_outcome_not_an_error() -> None:
    with refused_url() as url:
        outcome = await OpenAIDriver().validate(target(url).endpoint)
    assert (outcome.ok, outcome.auth_failed) == (False, False)
    assert "cannot connect" in outcome.message


async def test_a_vendor_without_a_model_list_is_asked_for_a_model_that_does_not_exist(
    upstream: FakeUpstream,
) -> None:
    upstream.key = KEY
    upstream.refuses(404)
    outcome = await OpenAIDriver().validate(target(upstream, quirks={"lists_models": False}).endpoint)
    assert (outcome.ok, outcome.models) == (True, None)
    upstream.key = "another"
    outcome = await OpenAIDriver().validate(target(upstream, quirks={"lists_models": False}).endpoint)
    assert (outcome.ok, outcome.auth_failed) == (False, True)


async def test_egress_holds_for_the_control_plane(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "_source", egress.Policy)
    with pytest.raises(UpstreamUnreachable, match="LLMHUB_EGRESS_ALLOW"):
        await OpenAIDriver().list_models(target(upstream).endpoint)
    assert upstream.requests == []


async def test_anthropic_lists_its_models_its_own_way(upstream: FakeUpstream) -> None:
    upstream.key = KEY
    endpoint = target(upstream, type=ProviderType.ANTHROPIC).endpoint
    assert len(await AnthropicDriver().list_models(endpoint)) == 1
    sent = upstream.requests[0]
    assert (sent.headers["x-api-key"], sent.headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "authorization" not in sent.headers
    assert sent.path == "/v1/models?limit=1000"
