"""How a request body of `/api` is read."""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from completions.exceptions import BodyTooLarge


class JSONParser(BaseParser):
    """JSON in UTF-8, not compressed, at most LLMHUB_MAX_BODY_BYTES, without NaN, not nested without end."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        request: Request = (parser_context or {})["request"]
        encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity")
        if encoding.lower() != "identity":
            raise UnsupportedMediaType(
                encoding, f"Content-Encoding {encoding!r} is not supported. Send plain JSON."
            )
        raw = stream.read(settings.LLMHUB_MAX_BODY_BYTES + 1)
        if len(raw) > settings.LLMHUB_MAX_BODY_BYTES:
            raise BodyTooLarge(settings.LLMHUB_MAX_BODY_BYTES)
        try:
            return json.loads(raw.decode(), parse_constant=_refuse_constant)
        except RecursionError:
            raise ParseError("The body is not JSON that can be read: it is nested too deeply.") from None
        except ValueError as error:  # bad JSON, bad UTF-8, a number with too many digits
            raise ParseError(f"The body is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


class AlwaysJSON(DefaultContentNegotiation):
    """The first renderer, whatever the client would accept: an SSE client's Accept must not become a 406."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type
