"""`/api/admin/providers/`."""

from django.urls.converters import StringConverter, register_converter
from rest_framework.routers import SimpleRouter

from providers.views import ProviderViewSet


class SlugConverter(StringConverter):
    """A provider's or a project's slug, as `models.slug_validator` allows it."""

    regex = r"[a-z0-9._-]+"


register_converter(SlugConverter, "hubslug")
router = SimpleRouter(use_regex_path=False)
router.register("admin/providers", ProviderViewSet, basename="admin-provider")
urlpatterns = router.urls
