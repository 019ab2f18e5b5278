"""The front door: static files, Django, and what lives as long as the process."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmhub.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import re_path

django = get_asgi_application()  # loads the apps: what follows may import models

from completions import keyed, probes, v1  # noqa: E402
from completions.cors import CORS  # noqa: E402
from completions.intake import BodyLimit  # noqa: E402
from completions.routing import websocket_urlpatterns  # noqa: E402
from llmhub.lifespan import lifespan  # noqa: E402
from llmhub.static import StaticFiles  # noqa: E402

Application = Callable[[Any, Any, Any], Awaitable[None]]

STATIC_URL: str = settings.STATIC_URL
data_plane: Application = v1.application
keyed_application: Application = keyed.application
django_application: Application = BodyLimit(django)
static_files: Application = StaticFiles(STATIC_URL)
if settings.LLMHUB_CORS_ORIGINS:
    data_plane = CORS(data_plane, settings.LLMHUB_CORS_ORIGINS)
    keyed_application = CORS(keyed_application, settings.LLMHUB_CORS_ORIGINS)
    django_application = CORS(django_application, settings.LLMHUB_CORS_ORIGINS)


async def no_socket(scope: Any, receive: Any, send: Any) -> None:
    """There is no websocket at this address."""
    await receive()
    await send({"type": "websocket.close"})


async def http(scope: Any, receive: Any, send: Any) -> None:
    """The data plane first: it is what must be fast, and it needs nothing of Django's request cycle."""
    path: str = scope["path"]
    if path.startswith("/v1/") or path == "/v1" or path in v1.WITHOUT_V1:
        await data_plane(scope, receive, send)
    elif path in keyed.PATHS and keyed.takes(scope):
        await keyed_application(scope, receive, send)
    elif path in probes.PROBES:
        await probes.application(scope, receive, send)
    elif path.startswith(STATIC_URL):
        await static_files(scope, receive, send)
    else:
        await django_application(scope, receive, send)


websockets: Application = URLRouter([*websocket_urlpatterns, re_path("", no_socket)])  # type: ignore[arg-type]
application = ProtocolTypeRouter({"http": http, "websocket": websockets, "lifespan": lifespan})
