"""`/v1`: OpenAI's wire. An ASGI application beside Django, outside of its request cycle, DRF and any SDK."""

from completions.v1.application import WITHOUT_V1, application

__all__ = ["WITHOUT_V1", "application"]
