"""`/api/admin/`: projects and keys, for staff. Providers are in `providers.views`."""

from typing import Any

from django.db.models import ProtectedError
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from completions import keys
from completions.exceptions import Conflict
from completions.models import ApiKey, Project
from completions.pagination import BySlug
from completions.serializers import ApiKeySerializer, NewApiKeySerializer, ProjectSerializer
from providers.permissions import StaffModelPermissions


@extend_schema(tags=["admin: projects"])
class ProjectViewSet(ModelViewSet[Project]):
    queryset = Project.objects.prefetch_related("members").order_by("slug")
    serializer_class = ProjectSerializer
    permission_classes = (StaffModelPermissions,)
    pagination_class = BySlug
    lookup_field = "slug"
    lookup_value_converter = "hubslug"

    def perform_destroy(self, instance: Project) -> None:
        try:
            instance.delete()
        except ProtectedError:
            raise Conflict(
                "This project has completions. Set enabled to false instead of deleting it."
            ) from None


@extend_schema(tags=["admin: keys"])
class ApiKeyViewSet(ModelViewSet[ApiKey]):
    queryset = ApiKey.objects.select_related("project")
    serializer_class = ApiKeySerializer
    permission_classes = (StaffModelPermissions,)
    lookup_value_converter = "int"

    @extend_schema(responses={201: NewApiKeySerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a key. The answer shows it; nothing shows it again."""
        asked = self.get_serializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        row, full_key = keys.create_key(given["project"], given["name"], expires_at=given.get("expires_at"))
        row.key = full_key  # type: ignore[attr-defined]
        return Response(NewApiKeySerializer(row).data, status=201, headers={"Cache-Control": "no-store"})

    def perform_destroy(self, instance: ApiKey) -> None:
        """Revoke: the row stays, and with it what the key has paid for."""
        keys.revoke(instance)
