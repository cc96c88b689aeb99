"""The app's configuration: begins to report when this process opens its first pool."""

from __future__ import annotations

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """``INSTALLED_APPS += ["relet.dashboard"]``."""

    name = "relet.dashboard"
    label = "relet_dashboard"
    verbose_name = "relet"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, reporter

        checks.install()
        reporter.install()
