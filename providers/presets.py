"""Vendors as rows: where they are, how their wire differs from OpenAI's, and where each fact comes from.

A row is what the admin fills its form with. Facts were checked against the linked pages in November 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from providers.types import ProviderType, Quirks


@dataclass(frozen=True, slots=True)
class Preset:
    """One vendor. `base_url` is empty where staff must give their own; `base_url_hint` shows its shape."""

    slug: str
    label: str
    type: ProviderType
    base_url: str
    needs_key: bool
    quirks: Quirks
    price_source: str | None  # the provider's id in genai-prices; None: nobody lists its prices
    source: str  # the page the row was checked against
    key_url: str = ""  # where a person gets a key
    example_models: tuple[str, ...] = ()
    base_url_hint: str = ""
    note: str = ""  # what staff should know before they choose it


OPENAI_WIRE = Quirks()
# The vendor documents max_tokens as deprecated, or refuses it on reasoning models.
NEW_BOUND = Quirks(output_bound="max_completion_tokens")

_ROWS = (
    Preset(
        slug="openai",
        label="OpenAI",
        type=ProviderType.OPENAI,
        base_url="https://api.openai.com/v1",
        needs_key=True,
        quirks=NEW_BOUND,
        price_source="openai",
        source="https://platform.openai.com/docs/api-reference/chat/create",
        key_url="https://platform.openai.com/api-keys",
        example_models=("gpt-6.1-sol", "gpt-6-luna", "gpt-4o-mini"),
    ),
    Preset(
        slug="azure_openai",
        label="Azure OpenAI",
        type=ProviderType.AZURE_OPENAI,
        base_url="",
        base_url_hint="https://YOUR-RESOURCE.openai.azure.com/openai/v1",
        needs_key=True,
        quirks=Quirks(output_bound="max_completion_tokens", auth_header="api-key"),
        price_source="azure",
        source="https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle",
        key_url="https://ai.azure.com",
        example_models=("gpt-4.1", "gpt-4o-mini"),
        note="Models are called by the names of your deployments. The list of models shows what the resource "
        "may deploy, not what is deployed.",
    ),
    Preset(
        slug="anthropic",
        label="Anthropic",
        type=ProviderType.ANTHROPIC,
        base_url="https://api.anthropic.com/v1",
        needs_key=True,
        quirks=OPENAI_WIRE,
        price_source="anthropic",
        source="https://platform.claude.com/docs/en/api/openai-sdk",
        key_url="https://platform.claude.com/settings/keys",
        example_models=("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"),
        note="Called through its OpenAI-compatible endpoint, which has no prompt caching.",
    ),
    Preset(
        slug="gemini",
        label="Google Gemini",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        needs_key=True,
        quirks=OPENAI_WIRE,
        price_source="google",
        source="https://ai.google.dev/gemini-api/docs/openai",
        key_url="https://aistudio.google.com/apikey",
        example_models=("gemini-3.8-flash", "gemini-3.1-pro-preview", "gemini-2.5-flash"),
    ),
    Preset(
        slug="mistral",
        label="Mistral",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.mistral.ai/v1",
        needs_key=True,
        # It answers 422 to stream_options.include_usage, and sends usage in the last chunk unasked:
        # https://github.com/openai/openai-agents-python/issues/442
        quirks=Quirks(stream_usage_option=False),
        price_source="mistral",
        source="https://docs.mistral.ai/api/endpoint/chat",
        key_url="https://console.mistral.ai/api-keys",
        example_models=("mistral-large-latest", "mistral-medium-latest", "mistral-small-latest"),
        note="Refuses parameters it does not know.",
    ),
    Preset(
        slug="groq",
        label="Groq",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.groq.com/openai/v1",
        needs_key=True,
        quirks=NEW_BOUND,
        price_source="groq",
        source="https://console.groq.com/docs/openai",
        key_url="https://console.groq.com/keys",
        example_models=("openai/gpt-oss-120b", "llama-3.3-70b-versatile", "llama-3.1-8b-instant"),
    ),
    Preset(
        slug="deepseek",
        label="DeepSeek",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.deepseek.com",
        needs_key=True,
        quirks=OPENAI_WIRE,
        price_source="deepseek",
        source="https://api-docs.deepseek.com",
        key_url="https://platform.deepseek.com/api_keys",
        example_models=("deepseek-v4-pro", "deepseek-v4-flash"),
        note="Most of its prices depend on the hour, so the bundled list leaves them out: set your own.",
    ),
    Preset(
        # Its completion_tokens leave out the reasoning tokens, which total_tokens holds:
        # https://github.com/vercel/ai/pull/12425
        slug="xai",
        label="xAI",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.x.ai/v1",
        needs_key=True,
        quirks=NEW_BOUND,
        price_source="x-ai",
        source="https://docs.x.ai/docs/api-reference",
        key_url="https://console.x.ai",
        example_models=("grok-4.7", "grok-4.5"),
    ),
    Preset(
        # Its list of models is a bare array, without OpenAI's {"data": []} around it:
        # https://github.com/lidge-jun/opencodex/issues/617
        slug="together",
        label="Together AI",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.together.ai/v1",
        needs_key=True,
        quirks=OPENAI_WIRE,
        price_source="together",
        source="https://docs.together.ai/docs/inference/openai-compatibility",
        key_url="https://api.together.ai/settings/api-keys",
        example_models=(
            "openai/gpt-oss-120b",
            "moonshotai/Kimi-K3",
            "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        ),
    ),
    Preset(
        slug="fireworks",
        label="Fireworks AI",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.fireworks.ai/inference/v1",
        needs_key=True,
        quirks=OPENAI_WIRE,
        price_source="fireworks",
        source="https://docs.fireworks.ai/tools-sdks/openai-compatibility",
        key_url="https://app.fireworks.ai/settings/users/api-keys",
        example_models=("accounts/fireworks/models/kimi-k3", "accounts/fireworks/models/gpt-oss-120b"),
    ),
    Preset(
        slug="openrouter",
        label="OpenRouter",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://openrouter.ai/api/v1",
        needs_key=True,
        quirks=OPENAI_WIRE,
        price_source="openrouter",
        source="https://openrouter.ai/docs/quickstart",
        key_url="https://openrouter.ai/settings/keys",
        example_models=("openai/gpt-6-luna", "anthropic/claude-sonnet-4.6", "google/gemini-3.8-flash"),
        note="Lists its models without a key, so a list that loads does not prove the key.",
    ),
    Preset(
        slug="perplexity",
        label="Perplexity",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.perplexity.ai",
        needs_key=True,
        quirks=Quirks(lists_models=False),
        price_source="perplexity",
        source="https://docs.perplexity.ai/docs/sonar/openai-compatibility",
        key_url="https://www.perplexity.ai/settings/api",
        example_models=("sonar-pro", "sonar"),
        note="Perplexity announced the end of Sonar chat completions for 27 September 2026: calls may be "
        "refused. It also charges a fee per request, so set prices of your own.",
    ),
    Preset(
        slug="cerebras",
        label="Cerebras",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.cerebras.ai/v1",
        needs_key=True,
        quirks=NEW_BOUND,
        price_source="cerebras",
        source="https://inference-docs.cerebras.ai/resources/openai",
        key_url="https://cloud.cerebras.ai",
        example_models=("gpt-oss-120b", "zai-glm-4.7"),
    ),
    Preset(
        slug="cohere",
        label="Cohere",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="https://api.cohere.ai/compatibility/v1",
        needs_key=True,
        # Its list of models is on the native API only. stream_options is taken since August 2025:
        # https://github.com/cohere-ai/cohere-developer-experience/pull/606
        quirks=Quirks(lists_models=False),
        price_source="cohere",
        source="https://docs.cohere.com/docs/compatibility-api",
        key_url="https://dashboard.cohere.com/api-keys",
        example_models=("command-a-03-2025", "command-r7b-12-2024"),
    ),
    Preset(
        slug="ollama",
        label="Ollama",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="http://127.0.0.1:11434/v1",
        needs_key=False,
        quirks=OPENAI_WIRE,
        price_source=None,
        source="https://docs.ollama.com/api/openai-compatibility",
        example_models=("gemma3:270m", "qwen3:8b"),
    ),
    Preset(
        slug="vllm",
        label="vLLM",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="http://127.0.0.1:8000/v1",
        needs_key=False,
        quirks=OPENAI_WIRE,
        price_source=None,
        source="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        note="Its default port, 8000, is also this hub's: start one of the two on another.",
    ),
    Preset(
        slug="llama_cpp",
        label="llama.cpp server",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="http://127.0.0.1:8080/v1",
        needs_key=False,
        quirks=OPENAI_WIRE,
        price_source=None,
        source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Preset(
        slug="lm_studio",
        label="LM Studio",
        type=ProviderType.OPENAI_COMPATIBLE,
        base_url="http://127.0.0.1:1234/v1",
        needs_key=False,
        quirks=OPENAI_WIRE,
        price_source=None,
        source="https://lmstudio.ai/docs/developer/openai-compat",
    ),
    Preset(
        slug="demo",
        label="Demo (no network)",
        type=ProviderType.DEMO,
        base_url="",
        needs_key=False,
        quirks=OPENAI_WIRE,
        price_source=None,
        source="providers/drivers/demo.py",
        example_models=("demo-chat",),
        note="Answers by itself, word by word, without calling anybody.",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.slug: row for row in _ROWS})

_DEFAULTS = {
    ProviderType.OPENAI: PRESETS["openai"],
    ProviderType.AZURE_OPENAI: PRESETS["azure_openai"],
    ProviderType.ANTHROPIC: PRESETS["anthropic"],
    ProviderType.DEMO: PRESETS["demo"],
}


def default_preset(kind: ProviderType) -> Preset | None:
    """The vendor that a type stands for by itself; None for `openai_compatible`, which is anybody."""
    return _DEFAULTS.get(kind)


def _preset_of(kind: ProviderType, preset_slug: str) -> Preset | None:
    """The chosen row; the type's own where none is chosen or the choice is of another type."""
    chosen = PRESETS.get(preset_slug)
    return chosen if chosen is not None and chosen.type == kind else default_preset(kind)


def quirks_of(kind: ProviderType, preset_slug: str) -> Quirks:
    preset = _preset_of(kind, preset_slug)
    return preset.quirks if preset else OPENAI_WIRE


def price_source_of(kind: ProviderType, preset_slug: str) -> str | None:
    preset = _preset_of(kind, preset_slug)
    return preset.price_source if preset else None


def base_url_of(kind: ProviderType, preset_slug: str, base_url: str) -> str:
    """Where to call, without a slash at the end: what staff gave, else the vendor's own, else empty."""
    preset = _preset_of(kind, preset_slug)
    return (base_url or (preset.base_url if preset else "")).rstrip("/")
