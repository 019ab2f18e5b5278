"""Where the websockets are."""

from django.urls import path

from completions.consumers import CompletionConsumer

websocket_urlpatterns = [path("ws/completions/", CompletionConsumer.as_asgi())]
