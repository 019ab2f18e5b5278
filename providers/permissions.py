"""Who may change the configuration through `/api/admin/`."""

from rest_framework.permissions import DjangoModelPermissions
from rest_framework.request import Request
from rest_framework.views import APIView


class StaffModelPermissions(DjangoModelPermissions):
    """Staff with the model's own permissions, as in the admin. An API key is never enough."""

    message = "This needs a session of staff with the permission for it; API keys cannot administer the hub."
    perms_map: dict[str, list[str]] = DjangoModelPermissions.perms_map | {
        "GET": ["%(app_label)s.view_%(model_name)s"],
        "HEAD": ["%(app_label)s.view_%(model_name)s"],
    }

    def has_permission(self, request: Request, view: APIView) -> bool:
        staff = request.user is not None and request.user.is_active and request.user.is_staff
        return staff and super().has_permission(request, view)
