"""Settings for Django's ``runtests.py``, told by `run` through the environment."""

import json
import os

import django

from relet.core import registry

_engine = os.environ["RELET_SUITE_ENGINE"]
_DATABASE = {
    "ENGINE": "suite_engine",
    # Django skips what it has no use for where connections are pooled.
    "OPTIONS": {"pool": True},
    **json.loads(os.environ["RELET_SUITE_DATABASE"]),
}
# Small, and quick to say so when a connection has leaked.
if _engine.startswith("relet."):
    if _engine == "relet.backends.pg8000":
        # Django's runner has django.contrib.postgres among its apps, by that name.
        from relet.backends.compat.django_on_pg8000 import import_hook

        import_hook.provide()
    adapter = registry.load(_engine.removeprefix("relet.backends."))
    pool_setting = _DATABASE
    *keys, last = adapter.options_setting
    for key in keys:
        pool_setting = pool_setting[key]
    pool_setting[last] = adapter.options_for(size=4, timeout=10)
    _DATABASE["OPTIONS"]["policy"] = json.loads(os.environ["RELET_SUITE_POLICY"])
    if (prepare := json.loads(os.environ["RELET_SUITE_PREPARE"])) is not None:
        _DATABASE["OPTIONS"]["prepare"] = prepare
else:
    _DATABASE["OPTIONS"]["pool"] = {"min_size": 0, "max_size": 4, "timeout": 10}

DATABASES = {
    "default": {**_DATABASE, "NAME": "django"},
    "other": {**_DATABASE, "NAME": "django2"},
}
if django.VERSION < (6, 0):
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_KEY = "django_tests_secret_key"
TEST_RUNNER = "suite_runner.RecordingRunner"
USE_TZ = False
