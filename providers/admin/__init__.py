"""Staff pages for what the hub can call."""

from providers.admin import language_models, llm_providers

__all__ = ["language_models", "llm_providers"]
