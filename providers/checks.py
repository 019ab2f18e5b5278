"""What makes a provider valid, in one place for the admin, the API, `apply` and Python.

And Django's system checks.
"""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from providers.presets import PRESETS
from providers.types import ProviderType

NEEDS_KEY = {ProviderType.OPENAI, ProviderType.AZURE_OPENAI, ProviderType.ANTHROPIC}
NEEDS_BASE_URL = {ProviderType.OPENAI_COMPATIBLE, ProviderType.AZURE_OPENAI}
# Parameters that a default_config may not hold: they choose the call's target or shape, not its answer.
RESERVED_CONFIG = {
    "model", "messages", "stream", "stream_options", "api_base", "base_url", "api_key", "extra_headers",
    "organization", "custom_llm_provider", "user",
}  # fmt: skip


def provider_problems(
    values: Mapping[str, Any], model_names: Collection[str], *, has_key: bool
) -> dict[str, str]:
    """What is wrong with a provider, by field; empty when it is valid.

    `values` holds name, type, preset, base_url, default_model and default_config; `model_names` the upstream
    names of its models; `has_key` whether a key is stored or being set.
    """
    problems: dict[str, str] = {}
    if not str(values.get("name") or "").strip():
        problems["name"] = "Give the provider a name."
    kind = values.get("type")
    if kind not in set(ProviderType):
        known = ", ".join(ProviderType)
        problems["type"] = f"Unknown provider type {kind!r}. Use one of: {known}."
        return problems
    preset = values.get("preset") or ""
    if preset and preset not in PRESETS:
        problems["preset"] = f"Unknown preset {preset!r}. Use one of: {', '.join(PRESETS)}, or leave it out."
    if kind in NEEDS_KEY and not has_key:
        problems["api_key"] = f"Providers of type {kind} need an API key."
    problems |= _base_url_problem(str(values.get("base_url") or ""), ProviderType(kind))
    problems |= _models_problem(str(values.get("default_model") or ""), model_names)
    problems |= _config_problem(values.get("default_config") or {})
    return problems


def _base_url_problem(base_url: str, kind: ProviderType) -> dict[str, str]:
    from providers.egress import refusal

    if not base_url:
        needed = f"Providers of type {kind} need a base URL, e.g. https://api.example.com/v1."
        return {"base_url": needed} if kind in NEEDS_BASE_URL else {}
    try:
        parts = urlsplit(base_url)
        valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        return {"base_url": f"{base_url!r} is not a URL. Write it like https://api.example.com/v1."}
    if not valid or parts.query or parts.fragment or parts.username:
        return {"base_url": "Use http:// or https:// with a host, without user, query or fragment."}
    if refused := refusal(base_url):
        return {"base_url": refused}
    return {}


def _models_problem(default_model: str, model_names: Collection[str]) -> dict[str, str]:
    if not model_names:
        return {"models": "Name at least one model."}
    if default_model not in model_names:
        known = ", ".join(model_names)
        return {"default_model": f"{default_model!r} is not among this provider's models: {known}."}
    return {}


def _config_problem(config: Any) -> dict[str, str]:
    if not isinstance(config, dict):
        return {"default_config": 'Write an object of parameters, e.g. {"temperature": 0.7}.'}
    if reserved := sorted(RESERVED_CONFIG & config.keys()):
        return {
            "default_config": f"{', '.join(reserved)} cannot be a default: it belongs to the call itself."
        }
    return {}
