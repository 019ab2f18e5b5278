"""The schema of `/api`: complete, offline, and true (schemathesis calls what it promises)."""

import io
import re
from typing import Any

import pytest
import schemathesis
import yaml
from django.conf import settings
from django.core.management import call_command
from django.middleware.csrf import get_token
from django.test import RequestFactory
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from rest_framework.test import APIClient
from schemathesis import checks

from providers.models import ModelPrice
from tests.conftest import LiveHub
from tests.factories import make_key, make_provider, make_staff
from tests.surfaces.api import bearer

EXAMPLES = 8  # calls of each operation
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi", stdout=out)
    loaded: dict[str, Any] = yaml.safe_load(out.getvalue())
    return loaded


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }


def test_the_schema_is_valid_and_drawn_without_a_warning(schema: dict[str, Any]) -> None:
    assert schema["openapi"] == "3.1.1"


def test_every_address_of_the_api_is_in_the_schema(schema: dict[str, Any]) -> None:
    assert {
        "POST /api/completions/",
        "GET /api/completions/",
        "GET /api/completions/{id}/",
        "GET /api/models/",
        "GET /api/providers/",
        "GET /api/providers/{slug}/status/",
        "GET /api/tokens/count/",
        "POST /api/tokens/count/",
        "GET /api/costs/estimate/",
        "POST /api/costs/estimate/",
        "POST /api/admin/providers/",
        "PATCH /api/admin/providers/{slug}/",
        "POST /api/admin/providers/{slug}/test/",
        "POST /api/admin/providers/{slug}/sync-models/",
        "POST /api/admin/projects/",
        "POST /api/admin/keys/",
        "DELETE /api/admin/keys/{id}/",
    } <= operations(schema).keys()


def test_every_operation_documents_the_body_of_its_errors(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema).items():
        for status in ("400", "401", "403", "default"):
            body = operation["responses"][status]["content"]["application/json"]["schema"]
            assert body == {"$ref": "#/components/schemas/Error"}, name


def test_no_answer_documents_a_secret(schema: dict[str, Any]) -> None:
    shapes = schema["components"]["schemas"]

    assert "api_key" not in shapes["Provider"]["properties"]
    assert "api_key" in shapes["ProviderRequest"]["properties"]
    assert "key" in shapes["NewApiKey"]["properties"]
    assert "key" not in shapes["ApiKey"]["properties"]


def test_the_parameters_of_config_are_documented_with_their_bounds(schema: dict[str, Any]) -> None:
    config = schema["components"]["schemas"]["CompletionRequestRequest"]["properties"]["config"]["properties"]

    assert (config["temperature"]["minimum"], config["temperature"]["maximum"]) == (0, 2)
    assert config["max_tokens"]["type"] == "integer"


def test_the_events_of_a_stream_are_documented(schema: dict[str, Any]) -> None:
    answer = operations(schema)["POST /api/completions/"]["responses"]["200"]["content"]

    assert answer.keys() == {"application/json", "text/event-stream"}
    names = answer["text/event-stream"]["schema"]["properties"]["event"]["enum"]
    assert names == ["started", "delta", "usage", "done", "error"]


def test_schema_and_docs_need_no_key() -> None:
    assert APIClient().get("/api/schema/").status_code == 200
    assert APIClient().get("/api/docs/").status_code == 200


def test_the_docs_load_nothing_from_other_hosts() -> None:
    page = APIClient().get("/api/docs/").content.decode()

    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert addresses
    assert all(address.startswith("/static/") for address in addresses)


def staff_headers() -> dict[str, str]:
    """A session of staff, as a browser sends it."""
    client = APIClient()
    client.force_login(make_staff(), backend="django.contrib.auth.backends.ModelBackend")
    token = get_token(RequestFactory().get("/"))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    return {
        "Cookie": f"{settings.SESSION_COOKIE_NAME}={session}; {settings.CSRF_COOKIE_NAME}={token}",
        "X-CSRFToken": token,
    }


def test_schemathesis_finds_no_crash_and_no_undocumented_answer(live_hub: LiveHub) -> None:
    """Staff's two addresses that call an upstream are left out: the schema would choose which."""
    model = make_provider(slug="demo", models=("demo-model",)).models.get()
    ModelPrice.objects.create(model=model, prompt=1, completion=2)
    key, staff = bearer(make_key()[1]), staff_headers()
    described = schemathesis.openapi.from_url(f"{live_hub.url}/api/schema/")
    described.config.generation.update(with_security_parameters=False)  # ours are real
    operations: list[Any] = [found.ok() for found in described.get_all_operations()]  # type: ignore[union-attr]

    assert len(operations) > 25
    operations.sort(key=lambda operation: "/admin/" in operation.path)  # staff's calls may revoke the key
    answered: set[tuple[str, int]] = set()
    for operation in operations:
        if not operation.path.endswith(("/test/", "/sync-models/")):
            answered |= probe(operation, staff if "/admin/" in operation.path else key)
    assert {
        ("POST /api/completions/", 200),
        ("GET /api/tokens/count/", 200),
        ("GET /api/costs/estimate/", 200),
        ("PATCH /api/admin/providers/{slug}/", 200),
    } <= answered


def steer(case: Any) -> None:
    """Generated names exist nowhere: put those of our rows in their place, or every answer is a 404."""
    names = {"model": "demo-model", "provider": "demo", "project": "web", "slug": "demo", "id": 1}
    if "/projects/" in case.operation.path:
        names["slug"] = "web"
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict) and case.method in ("GET", "PATCH", "POST"):
            part |= {name: value for name, value in names.items() if name in part}


def probe(operation: Any, headers: dict[str, str]) -> set[tuple[str, int]]:
    """A few generated calls, each answered as the schema says and without a 5xx; the statuses they got."""
    answered = set()

    @seed(1)
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        steer(case)
        response = case.call(headers=headers)
        answered.add((operation.label, response.status_code))
        case.validate_response(
            response,
            checks=[
                checks.not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_schema_conformance,
            ],
        )

    call()
    return answered
