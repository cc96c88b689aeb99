"""A panel for django-debug-toolbar.

``DEBUG_TOOLBAR_PANELS = [..., "relet.debug_toolbar.LeasesPanel"]`` in the settings.
"""

from relet.backends.contrib.debug_toolbar import LeasesPanel

__all__ = ["LeasesPanel"]
