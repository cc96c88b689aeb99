"""The page in the admin, as the list of the model `Process`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import URLPattern, path

from .models import Process
from .page import views

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Process]
else:
    ModelAdmin = admin.ModelAdmin


@admin.register(Process)
class FleetAdmin(ModelAdmin):
    """Nothing in it can be added, changed or deleted."""

    def get_urls(self) -> list[URLPattern]:
        view: Any = self.admin_site.admin_view
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [
            path("", view(views.page), name=name),
            path("end/", view(views.end)),
            path("fleet.css", views.style),
        ]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user: Any = request.user
        return bool(user.has_perm(views.VIEW))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
