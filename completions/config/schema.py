"""What may stand in the file. A new value is a row here; a new section is a Kind and a row of SECTIONS."""

from datetime import date

from completions.config import readers
from completions.config.rows import BudgetRows, KeyRows, ProjectRows, ProviderRows, Rows
from completions.config.shape import Children, Entry, Field, Kind
from completions.models import ApiKey, Budget, CacheScope, Project
from completions.periods import Period
from providers.models import LanguageModel, LLMProvider, ModelPrice
from providers.presets import PRESETS
from providers.types import ProviderType

# A price without a day holds from the beginning: the same file means the same thing whenever it is applied.
FROM_THE_BEGINNING = date(1970, 1, 1)


def _identity(entry: Entry) -> str:
    return str(entry.identity or "")


def _first_model(entry: Entry) -> str:
    return next((str(model.identity) for model in entry.children["models"] if model.identity), "")


PRICE = Kind(
    "price",
    Rows(ModelPrice),
    identity="valid_from",
    fields=(
        Field("valid_from", readers.day, default=lambda _: FROM_THE_BEGINNING),
        Field("prompt", readers.dollars, required=True),
        Field("cached", readers.optional_dollars),
        Field("cache_write", readers.optional_dollars),
        Field("completion", readers.dollars, required=True),
        Field("reasoning", readers.optional_dollars),
        Field("audio_prompt", readers.optional_dollars),
        Field("audio_completion", readers.optional_dollars),
    ),
)

MODEL = Kind(
    "model",
    Rows(LanguageModel),
    identity="name",
    shorthand="name",
    fields=(
        Field("name", readers.text, required=True),
        Field("public_name", readers.text, default=_identity),
        Field("context_window", readers.tokens),
        Field("max_output", readers.tokens),
        Field("capabilities", readers.texts),
        Field("cache.mode", readers.cache_mode, "cache_mode"),
        Field("cache.ttl_seconds", readers.optional_whole, "cache_ttl_seconds"),
        Field("cache.stale_seconds", readers.whole, "cache_stale_seconds"),
        Field("cache.least_similarity", readers.similarity, "cache_least_similarity"),
        Field("enabled", readers.flag),
    ),
    children=(Children("prices", PRICE, parent="model", single=True),),
)

PROVIDER = Kind(
    "provider",
    ProviderRows(LLMProvider),
    identity="slug",
    fields=(
        Field("slug", readers.text, required=True),
        Field("name", readers.text, default=_identity),
        Field("type", readers.one_of(lambda: ProviderType), required=True),
        Field("preset", readers.one_of(lambda: PRESETS)),
        Field("base_url", readers.optional_text),
        Field("api_key", readers.secret_text, secret=True, kept=True),
        Field("organization", readers.optional_text),
        Field("project", readers.optional_text),
        Field("default_model", readers.text, default=_first_model),
        Field("default_config", readers.json_object),
        Field("timeouts.connect", readers.seconds, "connect_timeout_seconds"),
        Field("timeouts.first_token", readers.seconds, "first_token_timeout_seconds"),
        Field("timeouts.idle", readers.seconds, "idle_timeout_seconds"),
        Field("timeouts.total", readers.seconds, "total_timeout_seconds"),
        Field("priority", readers.whole),
        Field("enabled", readers.flag),
    ),
    children=(Children("models", MODEL, parent="provider"),),
)

BUDGET = Kind(
    "budget",
    BudgetRows(Budget),
    identity="period",
    within=("per_end_user",),
    fields=(
        Field("period", readers.one_of(lambda: Period), required=True),
        Field("amount", readers.amount, required=True),
        Field("per_end_user", readers.flag),
        Field("hard", readers.flag),
        Field("thresholds", readers.percentages),
        Field("webhook_url", readers.optional_text),
        Field("webhook_secret", readers.secret_text, secret=True, kept=True),
        Field("enabled", readers.flag),
    ),
)

KEY = Kind(
    "key",
    KeyRows(ApiKey),
    identity="name",
    fields=(
        Field("name", readers.text, required=True),
        Field("secret", readers.key_secret, secret=True, kept=True),
        Field("expires", readers.moment, "expires_at"),
        Field("allowed_models", readers.texts),
        Field("limits.requests_per_minute", readers.limit, "requests_per_minute"),
        Field("limits.tokens_per_minute", readers.limit, "tokens_per_minute"),
        Field("limits.concurrent", readers.limit, "concurrent_calls"),
        Field("log_content", readers.flag),
        Field("cache", readers.cache_mode, "cache_mode"),
    ),
    children=(Children("budgets", BUDGET, parent="api_key"),),
)

PROJECT = Kind(
    "project",
    ProjectRows(Project),
    identity="slug",
    fields=(
        Field("slug", readers.text, required=True),
        Field("name", readers.text, default=_identity),
        Field("enabled", readers.flag),
        Field("members", readers.texts, kept=True),
        Field("time_zone", readers.text),
        Field("content_days", readers.whole),
        Field("cache.scope", readers.one_of(lambda: CacheScope), "cache_scope"),
        Field("cache.group", readers.optional_text, "cache_group"),
    ),
    children=(
        Children("budgets", BUDGET, parent="project", only={"api_key": None}),
        Children("keys", KEY, parent="project"),
    ),
)

SECTIONS = (
    Children("providers", PROVIDER, parent=""),
    Children("projects", PROJECT, parent=""),
)
