"""Who calls `/api`: an API key, or a person with a Django session. `request.auth` is the Caller."""

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.authentication import SessionAuthentication as DjangoSession
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from completions import keys
from completions.errors import AuthenticationError
from completions.middleware import request_id_of
from completions.models import Project
from completions.types import Caller, Session

if TYPE_CHECKING:  # rest_framework.views loads this module itself, by its settings
    from rest_framework.views import APIView

PROJECT_HEADER = "X-LLMHub-Project"


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer KEY`, or `x-api-key: KEY`."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Caller] | None:
        headers = request.META
        key = keys.presented(headers.get("HTTP_AUTHORIZATION", ""), headers.get("HTTP_X_API_KEY", ""))
        if key is None:
            return None
        try:
            caller = keys.authenticate(key, surface="api", request_id=request_id_of(request))
        except AuthenticationError as error:
            raise AuthenticationFailed(error.message) from error
        return AnonymousUser(), caller

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class SessionAuthentication(DjangoSession):
    """A signed-in person, with CSRF. The project is the one of X-LLMHub-Project, else the first of theirs."""

    def authenticate(self, request: Request) -> tuple[Any, Caller | None] | None:
        found = super().authenticate(request)
        if found is None:
            return None
        user = found[0]
        project = project_of(user, request.META.get("HTTP_X_LLMHUB_PROJECT", ""))
        if project is None:
            return user, None
        caller = Caller(
            project_id=project.pk,
            project=project.slug,
            user_id=user.pk,
            surface="api",
            request_id=request_id_of(request),
            session=_session_of(request),
        )
        return user, caller


def _session_of(request: Request) -> Session | None:
    store = getattr(request._request, "session", None)
    return Session(store.session_key) if store is not None and store.session_key else None


def project_of(user: Any, slug: str) -> Project | None:
    mine = Project.objects.filter(enabled=True, members=user)
    if not slug:
        return mine.order_by("slug").first()
    choice = Project.objects.filter(enabled=True) if user.is_superuser else mine
    project = choice.filter(slug=slug).first() if slug.isprintable() else None
    if project is None:
        raise PermissionDenied(f"{PROJECT_HEADER} names no project that you are a member of.")
    return project


class HasProject(BasePermission):
    """There is a project that pays for the call."""

    message = (
        "You are signed in, but are a member of no project. Ask staff to add you to one"
        f" (superusers may name any in the {PROJECT_HEADER} header)."
    )

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return isinstance(request.auth, Caller)
