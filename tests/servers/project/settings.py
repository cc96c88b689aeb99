"""Django's settings; what differs between tests comes from the environment."""

from __future__ import annotations

import json
import os

#: The engine, the database, the options of the pool.
DATABASES = {"default": {**json.loads(os.environ["PROJECT_DATABASE"]), "ATOMIC_REQUESTS": True}}

ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["project"]
ROOT_URLCONF = "project.urls"
SECRET_KEY = "there is nothing here to keep secret"
TIME_ZONE = "UTC"
USE_TZ = True
WSGI_APPLICATION = "project.wsgi.application"
