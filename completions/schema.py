"""The OpenAPI schema of `/api`: every operation with its errors, and how to sign in."""

from typing import Any, ClassVar, Literal

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework.serializers import (
    CharField,
    ChoiceField,
    DateTimeField,
    IntegerField,
    JSONField,
    Serializer,
)

from completions.exceptions import CODES
from completions.requests import CONFIG_FIELDS, NAME_CAP, ROLES
from providers.serializers import StrictSerializer

# --- what `completions.requests` accepts

_TEXT = {"type": "string"}
_PART = {
    "anyOf": [
        {
            "title": "text",
            "type": "object",
            "properties": {"type": {"type": "string", "const": "text"}, "text": _TEXT},
            "required": ["type", "text"],
        },
        {
            "title": "anything else",
            "type": "object",
            "properties": {"type": {"type": "string", "minLength": 1, "not": {"const": "text"}}},
            "required": ["type"],
        },
    ]
}
_CONTENT = {"oneOf": [_TEXT, {"type": "array", "items": _PART, "minItems": 1}]}
_MESSAGE = {
    "anyOf": [
        {
            "title": "message",
            "type": "object",
            "properties": {
                "role": {"type": "string", "enum": [role for role in ROLES if role != "tool"]},
                "content": _CONTENT,
                "name": _TEXT,
            },
            "required": ["role", "content"],
        },
        {
            "title": "the assistant's tool calls",
            "type": "object",
            "properties": {
                "role": {"type": "string", "const": "assistant"},
                "content": {"type": "null"},
                "tool_calls": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            },
            "required": ["role", "tool_calls"],
        },
        {
            "title": "a tool's result",
            "type": "object",
            "properties": {
                "role": {"type": "string", "const": "tool"},
                "content": _CONTENT,
                "tool_call_id": {"type": "string", "minLength": 1},
            },
            "required": ["role", "content", "tool_call_id"],
        },
    ]
}
MESSAGES = {"type": "array", "items": _MESSAGE, "minItems": 1}
CONFIG = {
    "type": "object",
    "properties": {row.name: row.schema | {"description": row.meaning} for row in CONFIG_FIELDS.values()},
    "additionalProperties": False,
}
TOOLS = {"description": "As in config.tools.", **CONFIG_FIELDS["tools"].schema}
NAME = {"type": "string", "maxLength": NAME_CAP}
EVENT = {
    "title": "server-sent event",
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["started", "delta", "usage", "done", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}

# --- what every operation has

ERRORS = {
    "400": "The request is wrong: `details` says where.",
    "401": "No API key or session, or one that is not accepted.",
    "403": "Known, but not allowed.",
    "413": "The body is larger than LLMHUB_MAX_BODY_BYTES.",
    "415": "The body is not application/json, or is encoded.",
    "503": "The hub cannot serve now; try again after `Retry-After` seconds.",
    "default": "Any other error, in the same shape.",
}
OTHER_CODES = ("TOKEN_LIMIT_EXCEEDED", "MODEL_NOT_PRICED", "INTERNAL_ERROR")
WITHOUT_BODY = {"get", "head", "delete"}


class ErrorSerializer(Serializer[Any]):
    """What every error looks like."""

    status_code = IntegerField(help_text="The HTTP status.")
    message = CharField(help_text="For people.")
    code = ChoiceField(choices=sorted({*CODES.values(), *OTHER_CODES}))
    timestamp = DateTimeField(help_text="When it happened (UTC).")
    details = JSONField(help_text="More facts: `param` names the offending field; messages by field.")


class HubSchema(AutoSchema):
    """Adds the errors to every operation that does not name them itself."""

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        responses: dict[str, Any] = super()._get_response_bodies(direction)
        shape = self.resolve_serializer(ErrorSerializer(), "response").ref
        wanted = dict(ERRORS)
        if self.method.lower() in WITHOUT_BODY:
            wanted = {status: text for status, text in wanted.items() if status not in ("413", "415")}
        if "{" in self.path:
            wanted["404"] = "There is none, or it is not yours."
        for status, text in wanted.items():
            responses.setdefault(
                status, {"description": text, "content": {"application/json": {"schema": shape}}}
            )
        return responses

    def _map_basic_serializer(self, serializer: Any, direction: Literal["request", "response"]) -> Any:
        shape = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(serializer, StrictSerializer):
            shape["additionalProperties"] = False
        return shape


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "completions.authentication.ApiKeyAuthentication"
    name: ClassVar[list[str]] = ["bearerKey", "headerKey"]  # type: ignore[misc]

    def get_security_definition(self, auto_schema: AutoSchema) -> Any:
        return [
            {"type": "http", "scheme": "bearer", "bearerFormat": "sk-llmhub-…"},
            {"type": "apiKey", "in": "header", "name": "x-api-key"},
        ]


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "completions.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> Any:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "sessionid",
            "description": "A signed-in person, with CSRF. `X-LLMHub-Project` names one of their projects.",
        }
