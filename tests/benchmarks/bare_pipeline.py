"""The pipeline behind a bare ASGI application: what a call costs where Django's request cycle is left out.

`python -m uvicorn tests.benchmarks.bare_pipeline:serve`: every POST is authenticated, checked, admitted, held
on its budgets, sent upstream, settled and answered.
"""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmhub.settings")

import orjson
from django.core.asgi import get_asgi_application

get_asgi_application()  # loads the apps

from completions import keys, pipeline, requests  # noqa: E402
from completions.errors import LLMServiceError  # noqa: E402
from completions.types import Call, CompletionRequest  # noqa: E402
from llmhub.lifespan import lifespan  # noqa: E402


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    status, answer = await complete(dict(scope["headers"])[b"authorization"].decode()[7:], orjson.loads(body))
    content = orjson.dumps(answer)
    sent = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": content})


async def complete(key: str, asked: dict[str, Any]) -> tuple[int, Any]:
    try:
        caller = await keys.aauthenticate(key, surface="bench")
        request = CompletionRequest(asked["messages"], asked["model"], asked.get("config") or {})
        run = await pipeline.start(Call(caller, requests.validate(request), request.model))
        response = await run.answer()
    except LLMServiceError as error:
        return error.status, {"message": error.message}
    return 200, {"content": response.content, "tokens": response.tokens, "message": response.message}
