"""`/api/admin/`: projects, keys and budgets, for staff. Providers are in `providers.views`."""

from datetime import timedelta
from typing import Any

from django.db.models import ProtectedError
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from completions import keys
from completions.exceptions import Conflict
from completions.models import ApiKey, Budget, Project
from completions.pagination import BySlug
from completions.staff_serializers import (
    ApiKeySerializer,
    BudgetSerializer,
    NewApiKeySerializer,
    ProjectSerializer,
    RotationSerializer,
)
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
        facts = dict(asked.validated_data)
        row, full_key = keys.create_key(facts.pop("project"), facts.pop("name"), **facts)
        return _shown_once(row, full_key, status=201)

    @extend_schema(request=RotationSerializer, responses=NewApiKeySerializer)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: int) -> Response:
        """Give a key a new secret. The answer shows it once; the one before works `overlap_hours` longer."""
        asked = RotationSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        row = self.get_object()
        full_key = keys.rotate(row, timedelta(hours=asked.validated_data["overlap_hours"]))
        return _shown_once(row, full_key, status=200)

    def perform_destroy(self, instance: ApiKey) -> None:
        """Revoke: the row stays, and with it what the key has paid for."""
        keys.revoke(instance)


def _shown_once(row: ApiKey, full_key: str, *, status: int) -> Response:
    row.key = full_key  # type: ignore[attr-defined]
    return Response(NewApiKeySerializer(row).data, status=status, headers={"Cache-Control": "no-store"})


@extend_schema(tags=["admin: budgets"])
class BudgetViewSet(ModelViewSet[Budget]):
    queryset = Budget.objects.select_related("project").defer("webhook_secret")
    serializer_class = BudgetSerializer
    permission_classes = (StaffModelPermissions,)
    lookup_value_converter = "uuid"

    def perform_destroy(self, instance: Budget) -> None:
        if instance.windows.exists():
            raise Conflict("Calls were charged to this budget. Set enabled to false instead of deleting it.")
        instance.delete()
