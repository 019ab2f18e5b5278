"""`/api/admin/providers/`: providers with their models and prices, for staff."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from providers import upstreams
from providers.models import LLMProvider
from providers.permissions import StaffModelPermissions
from providers.serializers import CheckSerializer, ProviderSerializer, SyncSerializer


@extend_schema(tags=["admin: providers"])
class ProviderViewSet(ModelViewSet[LLMProvider]):
    queryset = LLMProvider.objects.prefetch_related("models__prices").order_by("slug")
    serializer_class = ProviderSerializer
    permission_classes = (StaffModelPermissions,)
    lookup_field = "slug"
    lookup_value_converter = "hubslug"

    def perform_update(self, serializer: Any) -> None:
        row = serializer.save()
        row._prefetched_objects_cache = {}  # the answer shows the models as they are now

    @extend_schema(request=None, responses=CheckSerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, slug: str) -> Response:
        """A real call with the stored key; its outcome is kept as the provider's health."""
        return Response(asdict(upstreams.check_provider(self.get_object())))

    @extend_schema(request=None, responses=SyncSerializer)
    @action(detail=True, methods=["post"], url_path="sync-models")
    def sync_models(self, request: Request, slug: str) -> Response:
        """Add, disabled, the models that the provider offers and the hub does not know."""
        return Response(asdict(upstreams.sync_models(self.get_object())))
