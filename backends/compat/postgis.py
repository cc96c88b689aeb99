"""PostGIS: registers geometry types after its backend has created the extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relet.backends.temporarily import temporarily

if TYPE_CHECKING:
    from relet.backends.wrapper.wrapper import LeasingWrapper
else:
    LeasingWrapper = object


class GeometryAdapters(LeasingWrapper):
    """A mixin above a backend that registers geometry types with each new connection."""

    def register_geometry_adapters(self, raw: Any, clear_caches: bool = False) -> None:
        register: Any = super().register_geometry_adapters  # type: ignore[misc]
        if raw is not None:
            register(raw, clear_caches)
            return
        # The backend has run CREATE EXTENSION and passes `connection`, which is None by now.
        with self.temporary_connection():
            temporarily(
                self._runner,
                lambda: register(self.connection, clear_caches),
                internal_access=True,
            )
        # The pool's other connections were opened before the types existed.
        self.close_pool()
