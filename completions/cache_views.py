"""`/api/cache/`: what is cached of a project, and forgetting it."""

from dataclasses import replace
from typing import Any

from django.core.cache import cache as django_cache
from django.db.models import Count, Sum
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from completions import accounts
from completions.authentication import HasProject
from completions.cache.purge import Selection, purge
from completions.cache_serializers import (
    CachedSerializer,
    CacheQuerySerializer,
    PurgedSerializer,
    PurgeQuerySerializer,
)
from completions.models import CachedResponse, CacheScope, Project
from completions.serializers import dollars
from completions.types import Caller
from completions.views import PROJECT_HEADER
from providers import pricing
from providers.types import JSON

KEPT_SECONDS = 5  # the sums of a project are not made for every question


class HasProjectOrNamesOne(BasePermission):
    """There is a project: the caller's, or one that staff name."""

    message = HasProject.message

    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.auth, Caller):
            return True
        return "project" in request.query_params and bool(request.user and request.user.is_staff)


class CacheView(APIView):
    permission_classes = (HasProjectOrNamesOne,)

    @extend_schema(
        tags=["cache"], parameters=[PROJECT_HEADER, CacheQuerySerializer], responses=CachedSerializer
    )
    def get(self, request: Request) -> Response:
        """What is cached of your project, and what it saved. At most five seconds old."""
        asked = _checked(CacheQuerySerializer(data=request.query_params.dict()))
        project_id = _project_id(request, asked, "completions.view_cachedresponse")
        name = f"cached-sums:{project_id}"
        sums = django_cache.get(name)
        if sums is None:
            sums = _sums(project_id)
            django_cache.set(name, sums, KEPT_SECONDS)
        return Response(sums)

    @extend_schema(
        tags=["cache"],
        parameters=[PROJECT_HEADER, PurgeQuerySerializer],
        responses={200: PurgedSerializer},
    )
    def delete(self, request: Request) -> Response:
        """Forget cached answers of your project, on every process, pinned ones too.

        Where each key has answers of its own, those of the key that asks.
        """
        asked = _checked(PurgeQuerySerializer(data=request.query_params.dict()))
        project_id = _project_id(request, asked, "completions.delete_cachedresponse")
        chosen = Selection(project_id, model=asked.get("model"), provider=asked.get("provider"))
        count = purge(replace(chosen, api_key_id=_own_key(request, project_id)))
        django_cache.delete(f"cached-sums:{project_id}")
        return Response({"purged": count})


def _own_key(request: Request, project_id: int) -> int | None:
    """The key that asks, where each key of the project has answers of its own; None: it is about all."""
    key_id = request.auth.api_key_id if isinstance(request.auth, Caller) else None
    project = accounts.project(project_id)
    return key_id if project is not None and project.cache_scope == CacheScope.KEY else None


def _checked(serializer: Any) -> JSON:
    serializer.is_valid(raise_exception=True)
    checked: JSON = serializer.validated_data
    return checked


def _project_id(request: Request, asked: JSON, permission: str) -> int:
    """The caller's project, or the one that staff name."""
    slug = asked.get("project")
    if isinstance(request.auth, Caller) and slug in (None, request.auth.project):
        return request.auth.project_id
    if not (request.user.is_staff and request.user.has_perm(permission)):
        raise PermissionDenied("project: only staff with the permission for it may name another project.")
    found = Project.objects.filter(slug=slug).values_list("pk", flat=True).first()
    if found is None:
        raise ValidationError({"project": [f"There is no project {slug!r}."]})
    return found


def _sums(project_id: int) -> JSON:
    sums = CachedResponse.objects.filter(project_id=project_id).aggregate(
        entries=Count("project_id"), size=Sum("size_bytes"), hits=Sum("hits"), saved=Sum("saved_nano_usd")
    )
    return {
        "entries": sums["entries"],
        "bytes": sums["size"] or 0,
        "hits": sums["hits"] or 0,
        "saved_usd": dollars(pricing.usd(sums["saved"] or 0)),
    }
