"""`/api`: the HTTP face of LLMService. Each view parses, calls it, and renders."""

from dataclasses import asdict
from decimal import Decimal
from typing import Any, cast

from django.core.handlers.asgi import ASGIRequest
from django.db.models import Q, QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from completions import provider_status, requests, serializers, tickets
from completions.bridge import run_sync
from completions.limits import rate_limit_headers
from completions.models import Completion
from completions.schema import EVENT
from completions.service import LLMService
from completions.sse import EventStream, EventStreamResponse
from completions.tokens import TokenCount
from completions.types import Caller, CompletionRequest, LLMResponse, Metadata, Started
from providers.registry import snapshot
from providers.types import JSON, Usage

PROJECT_HEADER = OpenApiParameter(
    "X-LLMHub-Project",
    str,
    OpenApiParameter.HEADER,
    description="With a session: the project that pays, by slug.",
)


def caller_of(request: Request) -> Caller:
    """Who pays. HasProject has seen to it that there is one."""
    return cast("Caller", request.auth)


@extend_schema(tags=["completions"], parameters=[PROJECT_HEADER])
@extend_schema_view(
    list=extend_schema(parameters=[serializers.CompletionFilterSerializer]),
    retrieve=extend_schema(description="One completion of your own project."),
)
class CompletionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Completion]):
    """Completions of your own project, newest first."""

    queryset = Completion.objects.prefetch_related("adjustments")
    serializer_class = serializers.CompletionSerializer
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[Completion]:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):  # the schema is drawn without a caller
            return rows
        return rows.filter(project_id=caller_of(self.request).project_id)

    def get_serializer_class(self) -> Any:
        return serializers.CompletionDetailSerializer if self.action == "retrieve" else self.serializer_class

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.action != "list":
            return queryset
        given = {name: value for name, value in self.request.query_params.items() if name not in PAGING}
        wanted = _checked(serializers.CompletionFilterSerializer(data=given))
        if model := wanted.get("model"):
            queryset = queryset.filter(Q(requested_model=model) | Q(model=model))
        exact = {"state": "state", "since": "created_at__gte", "until": "created_at__lt"}
        return queryset.filter(**{exact[name]: value for name, value in wanted.items() if name in exact})

    @extend_schema(
        request=serializers.CompletionRequestSerializer,
        responses={
            (200, "application/json"): serializers.CompletionResponseSerializer,
            (200, "text/event-stream"): EVENT,
        },
    )
    def create(self, request: Request) -> HttpResponseBase:
        """Complete a conversation.

        With `stream: true` the answer is server-sent events: `started {id, model, provider}`, any number of
        `delta {content | reasoning | tool_calls}`, then `usage {prompt_tokens, completion_tokens,
        total_tokens, cost_usd}` and `done {finish_reason, content, tokens, metadata, message}`. What fails
        before the first event is an ordinary error; what fails later is the event `error`, the last one, with
        the body that every error has.
        """
        asked = checked_request(request)
        service = LLMService(caller_of(request))
        if not asked.validated_data.get("stream"):
            return _answer(service.complete(asked.request()))
        return _stream(service, asked.request(), asgi=isinstance(request._request, ASGIRequest))


PAGING = ("cursor", "limit")
CACHE_HEADERS = ("cache-control", "x-llmhub-cache", "x-llmhub-cache-ttl")


def checked_request(request: Request) -> serializers.CompletionRequestSerializer:
    """The body of `POST /api/completions/`, its fields checked. Raises DRF's ValidationError and its like."""
    asked = serializers.CompletionRequestSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    asked.cache = requests.cache_wish_of_headers(*(request.headers.get(name, "") for name in CACHE_HEADERS))
    return asked


def _answer(response: LLMResponse) -> Response:
    return Response(serializers.response_body(response), headers=answer_headers(response.metadata))


def _stream(service: LLMService, request: CompletionRequest, *, asgi: bool) -> HttpResponseBase:
    stream = run_sync(_opened, service, request)
    return EventStreamResponse(stream, asgi=asgi, headers=stream_headers(stream.started))


async def _opened(service: LLMService, request: CompletionRequest) -> EventStream:
    return await EventStream.open(await service.start(request, stream=True))


def answer_headers(answered: Metadata) -> dict[str, str]:
    """What the headers of a whole answer tell of it."""
    cost = serializers.dollars(answered.cost)
    return call_headers(answered) | ({} if cost is None else {"x-llmhub-cost-usd": cost})


def stream_headers(started: Started) -> dict[str, str]:
    """Those of a stream; proxies shall not hold it back."""
    return {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",
        **call_headers(started),
    }


def call_headers(answered: Metadata | Started) -> dict[str, str]:
    """What the headers of any answer to a call tell of it.

    Names of staff and callers may hold any letter; a header may not.
    """
    kept = {} if answered.age_seconds is None else {"Age": str(answered.age_seconds)}
    if answered.similarity is not None:
        kept["x-llmhub-cache-similarity"] = f"{answered.similarity:.4f}"
    return {
        **kept,
        "x-llmhub-model": ascii(answered.model)[1:-1],
        "x-llmhub-provider": answered.provider,
        "x-llmhub-cache": answered.cache,
        "x-llmhub-attempts": str(answered.attempts),
        **rate_limit_headers(answered.standings),
    }


def _checked(serializer: Any) -> JSON:
    serializer.is_valid(raise_exception=True)
    return cast("JSON", serializer.validated_data)


class TicketView(APIView):
    @extend_schema(
        tags=["completions"],
        parameters=[PROJECT_HEADER],
        request=None,
        responses={201: serializers.TicketSerializer},
    )
    def post(self, request: Request) -> Response:
        """A ticket to open a websocket with, once and soon: see docs/streaming.md."""
        return Response(serializers.TicketSerializer(tickets.issue(caller_of(request))).data, status=201)


class ModelsView(APIView):
    @extend_schema(
        tags=["models and providers"],
        parameters=[serializers.ModelFilterSerializer],
        responses=serializers.AvailableModelsSerializer,
    )
    def get(self, request: Request) -> Response:
        """The models you may call."""
        wanted = _checked(serializers.ModelFilterSerializer(data=request.query_params.dict())).get("provider")
        service = LLMService(caller_of(request))
        if wanted is not None:
            service.get_provider(wanted)  # refuses an unknown one by its name
        models = [model for model in service.get_available_models() if wanted in (None, model.provider)]
        return Response(serializers.AvailableModelsSerializer({"results": models}).data)


class ProvidersView(APIView):
    @extend_schema(tags=["models and providers"], responses=serializers.AvailableProvidersSerializer)
    def get(self, request: Request) -> Response:
        """The providers behind your models."""
        service = LLMService(caller_of(request))
        infos = [service.get_provider(slug) for slug in snapshot().providers]
        return Response(serializers.AvailableProvidersSerializer({"results": infos}).data)


class ProviderStatusView(APIView):
    @extend_schema(
        tags=["models and providers"],
        parameters=[OpenApiParameter("slug", str, OpenApiParameter.PATH)],
        responses=serializers.ProviderStatusSerializer,
    )
    def get(self, request: Request, slug: str) -> Response:
        """A real call to the provider with its stored key; the outcome is kept for ten seconds."""
        if slug not in snapshot().providers:
            raise NotFound()
        status = provider_status.status(LLMService(caller_of(request)), slug)
        return Response(serializers.ProviderStatusSerializer(asdict(status)).data)


class TokenCountView(APIView):
    @extend_schema(
        tags=["tokens and costs"],
        parameters=[serializers.TokenCountQuerySerializer],
        responses=serializers.TokenCountSerializer,
    )
    def get(self, request: Request) -> Response:
        """Tokens of a text."""
        given = _checked(serializers.TokenCountQuerySerializer(data=request.query_params.dict()))
        return _count(LLMService(caller_of(request)), given)

    @extend_schema(
        tags=["tokens and costs"],
        request=serializers.TokenCountRequestSerializer,
        responses=serializers.TokenCountSerializer,
    )
    def post(self, request: Request) -> Response:
        """Tokens of a text, or of messages with their overhead."""
        given = _checked(serializers.TokenCountRequestSerializer(data=request.data))
        return _count(LLMService(caller_of(request)), given)


def _count(service: LLMService, given: JSON) -> Response:
    if "messages" in given:
        count = _count_messages(service, given)
    else:
        count = service.count_text_tokens(given["text"], given.get("model"))
    return Response(serializers.TokenCountSerializer(count).data)


def _count_messages(service: LLMService, given: JSON) -> TokenCount:
    tools = requests.check_tools(given["tools"]) if given.get("tools") is not None else None
    return service.count_message_tokens(requests.check_messages(given["messages"]), given.get("model"), tools)


class CostEstimateView(APIView):
    @extend_schema(
        tags=["tokens and costs"],
        parameters=[serializers.CostQuerySerializer],
        responses=serializers.CostSerializer,
    )
    def get(self, request: Request) -> Response:
        """What tokens cost at a model's price."""
        asked = serializers.CostQuerySerializer(data=request.query_params.dict())
        _checked(asked)
        return _estimate(LLMService(caller_of(request)), asked, asked.usage())

    @extend_schema(
        tags=["tokens and costs"],
        request=serializers.CostRequestSerializer,
        responses=serializers.CostSerializer,
    )
    def post(self, request: Request) -> Response:
        """What tokens cost at a model's price, or the most that a call with these messages can cost."""
        asked = serializers.CostRequestSerializer(data=request.data)
        given = _checked(asked)
        service = LLMService(caller_of(request))
        if "messages" not in given:
            return _estimate(service, asked, asked.usage())
        count = _count_messages(service, given)
        usage = Usage(prompt=count.count, completion=given["max_tokens"])
        return _estimate(service, asked, usage, exact=count.exact)


def _estimate(service: LLMService, asked: Any, usage: Usage, *, exact: bool = True) -> Response:
    model: str = asked.validated_data["model"]
    cost: Decimal = service.calculate_cost(usage, model)
    body = {
        "cost": serializers.dollars(cost),
        "currency": "USD",
        "model": model,
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "exact": exact,
    }
    return Response(body)


@extend_schema(exclude=True)
class UnknownView(APIView):
    """Every other address under `/api/`: the same 404 for everybody, whatever the method."""

    authentication_classes = ()
    permission_classes = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.http_method_names = [request.method.lower()]
        setattr(self, request.method.lower(), self._not_found)
        return super().dispatch(request, *args, **kwargs)

    def _not_found(self, request: Request, path: str = "") -> Response:
        raise NotFound("There is nothing at this address. /api/docs/ lists what there is.")
