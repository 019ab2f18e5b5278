"""Anthropic: its OpenAI-compatible chat completions, and its own list of models.

https://docs.anthropic.com/en/api/openai-sdk, https://docs.anthropic.com/en/api/models-list
"""

from providers.drivers.openai import OpenAIDriver
from providers.types import Endpoint, ModelInfo, Validation

VERSION = "2023-06-01"
PAGE = {"limit": "1000"}


class AnthropicDriver(OpenAIDriver):
    """What differs: the list of models takes the key as x-api-key, names a version, and has pages."""

    async def list_models(self, endpoint: Endpoint) -> list[ModelInfo]:
        from providers.drivers import control

        return await control.list_models(endpoint, self._own_headers(endpoint), self._heard, PAGE)

    async def validate(self, endpoint: Endpoint) -> Validation:
        from providers.drivers import control

        return await control.validate(endpoint, self._own_headers(endpoint), self._heard, PAGE)

    def _own_headers(self, endpoint: Endpoint) -> dict[str, str]:
        key = endpoint.api_key.reveal()
        return {**endpoint.headers, "x-api-key": key, "anthropic-version": VERSION}
