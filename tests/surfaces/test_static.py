"""Static files: found where the apps keep them, cacheable, and nothing else."""

import http.client

import pytest
import requests

from tests.conftest import LiveHub


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("admin/js/core.js", "text/javascript; charset=utf-8"),
        ("unfold/css/styles.css", "text/css; charset=utf-8"),
        ("drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("drf_spectacular_sidecar/swagger-ui-dist/favicon-32x32.png", "image/png"),
    ],
)
def test_a_file_of_an_app_is_served_with_its_type(live_hub: LiveHub, path: str, content_type: str) -> None:
    answer = requests.get(f"{live_hub.url}/static/{path}", timeout=20)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == "*"  # pages elsewhere import the client from here


def test_an_unchanged_file_is_not_sent_again(live_hub: LiveHub) -> None:
    url = f"{live_hub.url}/static/admin/js/core.js"
    etag = requests.get(url, timeout=20).headers["etag"]
    answer = requests.get(url, headers={"If-None-Match": etag}, timeout=20)
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("path", "cached"),
    [
        ("completions/playground/main.js", "no-cache"),
        ("completions/page.css", "no-cache"),
        ("completions/favicon.svg", "public, max-age=3600"),
        ("unfold/fonts/inter/Inter-Regular.woff2", "public, max-age=3600"),
    ],
)
def test_code_is_asked_about_every_time_so_that_an_upgrade_mixes_no_versions(
    live_hub: LiveHub, path: str, cached: str
) -> None:
    answer = requests.get(f"{live_hub.url}/static/{path}", timeout=20)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, cached)


@pytest.mark.parametrize(
    "path",
    [
        "/static/absent.css",
        "/static/",
        "/static/admin",
        "/static/../manage.py",
        "/static/%2e%2e/%2e%2e/manage.py",
        "/static/..%2f..%2fsettings.py",
        "/static/admin/..%5c..%5csettings.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/%ff%fe",
        "/static/" + "a" * 5000,
    ],
)
def test_what_is_no_static_file_is_not_found(live_hub: LiveHub, path: str) -> None:
    connection = http.client.HTTPConnection(
        live_hub.host, live_hub.port, timeout=20
    )  # sends the path as it is
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 404
    connection.close()


def test_a_static_file_cannot_be_posted_to(live_hub: LiveHub) -> None:
    answer = requests.post(f"{live_hub.url}/static/admin/js/core.js", timeout=20)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
