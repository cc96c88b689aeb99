"""Django's settings; what differs between tests comes from the environment."""

from __future__ import annotations

import json
import os

#: The engine, the database, the options of the pool.
DATABASES = {"default": {**json.loads(os.environ["PROJECT_DATABASE"]), "ATOMIC_REQUESTS": True}}

ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["project"]
if os.environ.get("PROJECT_FLEET"):
    INSTALLED_APPS += ["relet.dashboard"]
if os.environ.get("PROJECT_ADMIN"):
    INSTALLED_APPS += [
        f"django.contrib.{app}" for app in ("contenttypes", "auth", "sessions", "messages", "admin")
    ]
    MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
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
    STATIC_URL = "static/"
ROOT_URLCONF = "project.urls"
SECRET_KEY = "there is nothing here to keep secret"
TIME_ZONE = "UTC"
USE_TZ = True
WSGI_APPLICATION = "project.wsgi.application"
