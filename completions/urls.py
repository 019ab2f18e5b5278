"""Everything under `/api/`."""

from django.urls import path, re_path
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.routers import SimpleRouter

from completions import cache_views, report_views, staff_views, views
from providers import urls as provider_urls

schema = SpectacularAPIView.as_view(
    authentication_classes=(),
    renderer_classes=[OpenApiJsonRenderer2, OpenApiYamlRenderer],
    content_negotiation_class=DefaultContentNegotiation,
)
docs = SpectacularSwaggerView.as_view(url_name="api-schema", authentication_classes=())

router = SimpleRouter(use_regex_path=False)
router.register("completions", views.CompletionViewSet, basename="completion")
router.register("admin/projects", staff_views.ProjectViewSet, basename="admin-project")
router.register("admin/keys", staff_views.ApiKeyViewSet, basename="admin-key")
router.register("admin/budgets", staff_views.BudgetViewSet, basename="admin-budget")

urlpatterns = [
    *provider_urls.urlpatterns,
    *router.urls,
    path("ws-tickets/", views.TicketView.as_view(), name="ws-tickets"),
    path("models/", views.ModelsView.as_view(), name="models"),
    path("providers/", views.ProvidersView.as_view(), name="providers"),
    path("providers/<hubslug:slug>/status/", views.ProviderStatusView.as_view(), name="provider-status"),
    path("tokens/count/", views.TokenCountView.as_view(), name="token-count"),
    path("costs/estimate/", views.CostEstimateView.as_view(), name="cost-estimate"),
    path("usage/", report_views.UsageView.as_view(), name="usage"),
    path("budgets/", report_views.BudgetsView.as_view(), name="budgets"),
    path("cache/", cache_views.CacheView.as_view(), name="cache"),
    path("schema/", schema, name="api-schema"),
    path("docs/", docs, name="api-docs"),
    re_path(r"^(?P<path>.*)$", views.UnknownView.as_view()),
]
