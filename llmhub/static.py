"""Static files straight from where the apps keep them: no collectstatic, no copy that can go stale."""

import os
from typing import Any

from django.contrib.staticfiles import finders
from starlette import staticfiles
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

MAX_AGE_SECONDS = 3600  # of fonts and pictures; after that a browser asks again, and is told 304
# Asked about at every page: after an upgrade an old script must not meet a new page, or another new script.
CODE = (".js", ".css")


class StaticFiles(staticfiles.StaticFiles):
    """Starlette's static files (types, ETag, 304, ranges), looked up by Django's finders."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def get_path(self, scope: Any) -> str:
        path: str = scope["path"]
        return path.removeprefix(self.prefix)

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        if not path or "\x00" in path or "\\" in path or path.startswith("/") or ".." in path.split("/"):
            return "", None
        found = finders.find(path)
        return (found, os.stat(found)) if found else ("", None)  # noqa: PTH116 - what Starlette's method returns

    async def get_response(self, path: str, scope: Any) -> Response:
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            return PlainTextResponse(str(error.detail), error.status_code, headers=error.headers)
        age = "no-cache" if path.endswith(CODE) else f"public, max-age={MAX_AGE_SECONDS}"
        response.headers["Cache-Control"] = age
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Access-Control-Allow-Origin"] = "*"  # other pages import llmhub-client.js from here
        return response
