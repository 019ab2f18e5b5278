"""The hub's own settings, on throw-away ground: nothing of the developer's environment reaches the suite.

Each process (pytest, an xdist worker) has its own data directory and, on SQLite, its own database file:
a file and not memory, because a test of the hub has several threads with a connection each.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from llmhub.environment import SETTINGS
from tests.outside import TEST_DATABASE_URL

TEST_DATA_DIR = Path(tempfile.mkdtemp(prefix="llmhub-test-"))
atexit.register(shutil.rmtree, TEST_DATA_DIR, ignore_errors=True)

ON_POSTGRES = os.environ.get("LLMHUB_TEST_ON_POSTGRES") == "1"

for setting in SETTINGS:
    os.environ.pop(setting.name, None)
    os.environ.pop(f"{setting.name}_FILE", None)
os.environ |= {
    "LLMHUB_DATA_DIR": str(TEST_DATA_DIR),
    "LLMHUB_SECRET_KEY": "the secret key of the test suite, of no use elsewhere",
    "LLMHUB_ENCRYPTION_KEYS": "the encryption key of the test suite",
    "LLMHUB_LOG_LEVEL": "WARNING",
}
if ON_POSTGRES:
    os.environ["DATABASE_URL"] = TEST_DATABASE_URL

from llmhub.settings import *  # noqa: E402, F403 - the environment above comes first
from llmhub.settings import DATABASES  # noqa: E402

DATABASES["default"]["TEST"] = (
    {"NAME": f"llmhub_test_{os.getpid()}"} if ON_POSTGRES else {"NAME": str(TEST_DATA_DIR / "test.sqlite3")}
)
if not ON_POSTGRES:  # throw-away rows need no fsync; what a crash leaves is tested on hubs of their own
    DATABASES["default"]["OPTIONS"]["init_command"] += " PRAGMA synchronous=OFF;"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
