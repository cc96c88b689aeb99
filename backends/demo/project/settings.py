"""Django's settings. The engine, which differs between runs, comes from the environment."""

from __future__ import annotations

import json
import os

_connections = int(os.environ["RELET_DEMO_CONNECTIONS"])

DATABASES = {
    "default": {
        # The only setting that differs between the two runs.
        "ENGINE": os.environ["RELET_DEMO_ENGINE"],
        **json.loads(os.environ["RELET_DEMO_DATABASE"]),
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "OPTIONS": {"pool": {"min_size": _connections, "max_size": _connections}},
    }
}

ALLOWED_HOSTS = ["127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["relet.backends.demo.project"]
ROOT_URLCONF = "relet.backends.demo.project.urls"
SECRET_KEY = "there is nothing here to keep secret"
TIME_ZONE = "UTC"
USE_TZ = True
WSGI_APPLICATION = "relet.backends.demo.project.wsgi.application"

# Send everything to the log file, including tracebacks of failed requests.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
