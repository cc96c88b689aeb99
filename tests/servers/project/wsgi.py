"""What gunicorn and runserver serve."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

if os.environ.get("PROJECT_QUERIES_AT_IMPORT"):
    from project.models import Write

    Write.objects.create(token=f"import-{os.getpid()}")
