"""What PostGIS's backend tells a connection of its types, when it has created its extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relet.backends.temporarily import temporarily

if TYPE_CHECKING:
    from relet.backends.wrapper.wrapper import LeasingWrapper
else:
    LeasingWrapper = object


class Geometry(LeasingWrapper):
    """Mixed in above a backend that registers geometries, which is done when one is new."""

    def register_geometry_adapters(self, raw: Any, clear_caches: bool = False) -> None:
        register: Any = super().register_geometry_adapters  # type: ignore[misc]
        if raw is not None:
            register(raw, clear_caches)
            return
        # It has run CREATE EXTENSION, and takes for granted that `connection` is there still.
        with self.temporary_connection():
            temporarily(
                self._runner,
                lambda: register(self.connection, clear_caches),
                internal_access=True,
            )
        # The pool's connections were told that there are no such types.
        self.close_pool()
