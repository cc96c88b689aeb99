"""Settings for Django's ``runtests.py``, told by `run` through the environment."""

import json
import os

_DATABASE = {
    "ENGINE": "suite_engine",
    "OPTIONS": {
        # Small, and quick to say so when a connection has leaked.
        "pool": {"min_size": 0, "max_size": 4, "timeout": 10},
        **(
            {"policy": json.loads(os.environ["RELET_SUITE_POLICY"])}
            if os.environ["RELET_SUITE_ENGINE"].startswith("relet.")
            else {}
        ),
    },
    **json.loads(os.environ["RELET_SUITE_DATABASE"]),
}

DATABASES = {
    "default": {**_DATABASE, "NAME": "django"},
    "other": {**_DATABASE, "NAME": "django2"},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_KEY = "django_tests_secret_key"
TEST_RUNNER = "suite_runner.RecordingRunner"
USE_TZ = False
