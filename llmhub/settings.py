"""Django settings. What can be set, and how it is checked, is in `llmhub/environment.py`."""

import os
import sys

from django.urls import reverse_lazy

from llmhub import environment as env

BASE_DIR = env.BASE_DIR
E_ = env.read_all()

# --- the hub itself
HOST = E_["HOST"]
PORT = E_["PORT"]
LLMHUB_DATA_DIR = E_["LLMHUB_DATA_DIR"]
LLMHUB_EMBEDDED = not E_["DATABASE_URL"].startswith("postgres")
LLMHUB_EGRESS_ALLOW = E_["LLMHUB_EGRESS_ALLOW"]
LLMHUB_LISTENS_ON_LOOPBACK = HOST in ("127.0.0.1", "localhost", "::1")
LLMHUB_DEFAULT_PROJECT = E_["LLMHUB_DEFAULT_PROJECT"]
LLMHUB_MAX_BODY_BYTES = E_["LLMHUB_MAX_BODY_BYTES"]
LLMHUB_LEDGER_DAYS = E_["LLMHUB_LEDGER_DAYS"]
LLMHUB_MOST_CALLS = E_["LLMHUB_MOST_CALLS"]
LLMHUB_CACHE = E_["LLMHUB_CACHE"]
LLMHUB_CACHE_TTL_SECONDS = E_["LLMHUB_CACHE_TTL_SECONDS"]
LLMHUB_CACHE_MEMORY_BYTES = E_["LLMHUB_CACHE_MEMORY_BYTES"]
LLMHUB_CACHE_ENTRY_BYTES = E_["LLMHUB_CACHE_ENTRY_BYTES"]
LLMHUB_CACHE_STORED_BYTES = E_["LLMHUB_CACHE_STORED_BYTES"]
LLMHUB_SEMANTIC_CACHE = E_["LLMHUB_SEMANTIC_CACHE"]
LLMHUB_STREAM_GRACE_SECONDS = E_["LLMHUB_STREAM_GRACE_SECONDS"]
LLMHUB_SOCKET_IDLE_SECONDS = E_["LLMHUB_SOCKET_IDLE_SECONDS"]
LLMHUB_SOCKET_MESSAGES_PER_SECOND = E_["LLMHUB_SOCKET_MESSAGES_PER_SECOND"]
LLMHUB_STREAMS_PER_SOCKET = E_["LLMHUB_STREAMS_PER_SOCKET"]
LLMHUB_SOCKETS_PER_KEY = E_["LLMHUB_SOCKETS_PER_KEY"]
LLMHUB_SOCKETS_PER_USER = E_["LLMHUB_SOCKETS_PER_USER"]
LLMHUB_CORS_ORIGINS = E_["LLMHUB_CORS_ORIGINS"]
LLMHUB_METRICS_TOKEN = E_["LLMHUB_METRICS_TOKEN"]
LLMHUB_DRAIN_SECONDS = E_["LLMHUB_DRAIN_SECONDS"]
REDIS_URL = E_["REDIS_URL"]
WEB_CONCURRENCY = E_["WEB_CONCURRENCY"]

# --- secrets
SECRET_KEY = E_["LLMHUB_SECRET_KEY"] or env.secret_from_file(
    LLMHUB_DATA_DIR / "secret.key", LLMHUB_EMBEDDED, "LLMHUB_SECRET_KEY"
)
LLMHUB_ENCRYPTION_KEYS = E_["LLMHUB_ENCRYPTION_KEYS"] or [
    env.secret_from_file(LLMHUB_DATA_DIR / "encryption.key", LLMHUB_EMBEDDED, "LLMHUB_ENCRYPTION_KEYS")
]

# --- Django
DEBUG = E_["LLMHUB_DEBUG"]
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", HOST, *E_["LLMHUB_ALLOWED_HOSTS"]]
CSRF_TRUSTED_ORIGINS = E_["LLMHUB_TRUSTED_ORIGINS"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if CSRF_TRUSTED_ORIGINS else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = bool(CSRF_TRUSTED_ORIGINS)
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = LLMHUB_MAX_BODY_BYTES
ROOT_URLCONF = "llmhub.urls"
ASGI_APPLICATION = "llmhub.asgi.application"
TIME_ZONE = E_["LLMHUB_TIME_ZONE"]
USE_TZ = True
LANGUAGE_CODE = "en-us"
STATIC_URL = "/static/"
LOGIN_URL = reverse_lazy("sign-in")
LOGIN_REDIRECT_URL = reverse_lazy("playground")
LOGOUT_REDIRECT_URL = reverse_lazy("home")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEST_RUNNER = "django.test.runner.DiscoverRunner"

INSTALLED_APPS = [
    # daphne gives `manage.py runserver` its ASGI server; elsewhere it would cost a second and 18 MB at start.
    *(["daphne"] if "runserver" in sys.argv else []),
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "providers",
    "completions",
]
MIDDLEWARE = [
    "completions.middleware.api_middleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": env.database(E_["DATABASE_URL"], LLMHUB_DATA_DIR)}
CACHES = {"default": env.cache(REDIS_URL, LLMHUB_CACHE_MEMORY_BYTES)}
CHANNEL_LAYERS = {"default": env.channel_layer(REDIS_URL)}
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# --- sign-in attempts: locked by (user, address) and by user
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "username"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_CALLABLE = "completions.pages.locked_out"
AXES_HTTP_RESPONSE_CODE = 429
AXES_VERBOSE = False
AXES_ENABLE_ADMIN = False

# --- tiktoken: the encodings are in the repository; nothing is downloaded
os.environ["TIKTOKEN_CACHE_DIR"] = str(BASE_DIR / "llmhub" / "data" / "tiktoken")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "completions.authentication.ApiKeyAuthentication",
        "completions.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["completions.authentication.HasProject"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["completions.parsers.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "completions.parsers.AlwaysJSON",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "completions.schema.HubSchema",
    "EXCEPTION_HANDLER": "completions.exceptions.exception_handler",
    "DEFAULT_PAGINATION_CLASS": "completions.pagination.NewestFirst",
    "PAGE_SIZE": 50,
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "llmhub",
    "DESCRIPTION": "One API for every LLM provider your staff configured; every call metered in one ledger.",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},  # the validator is on another host
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
}
UNFOLD = {
    "SITE_TITLE": "llmhub",
    "SITE_HEADER": "llmhub",
    "SITE_SYMBOL": "hub",
    "SITE_URL": "/",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/completions/favicon.svg"}],
    "DASHBOARD_CALLBACK": "completions.admin.dashboard.dashboard",
    "SIDEBAR": {"navigation": "completions.admin.navigation.sidebar"},
    "STYLES": ["/static/completions/admin.css"],
    "COLORS": {
        "primary": {
            "50": "oklch(96.2% .018 272.314)",
            "100": "oklch(93% .034 272.788)",
            "200": "oklch(87% .065 274.039)",
            "300": "oklch(78.5% .115 274.713)",
            "400": "oklch(67.3% .182 276.935)",
            "500": "oklch(64% .2 277)",
            "600": "oklch(51.1% .262 276.966)",
            "700": "oklch(45.7% .24 277.023)",
            "800": "oklch(39.8% .195 277.366)",
            "900": "oklch(35.9% .144 278.697)",
            "950": "oklch(25.7% .09 281.288)",
        }
    },
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": E_["LLMHUB_LOG_LEVEL"]},
    # A caller's 4xx is the caller's news, told in the answer; the log is for what staff can mend.
    # At DEBUG urllib3 would write addresses, of which a webhook's may be a secret, and uvicorn the headers and
    # messages of websockets.
    "loggers": {
        "django.request": {"level": "ERROR"},
        "urllib3": {"level": "INFO"},
        "uvicorn.error": {"level": "WARNING"},
    },
}
