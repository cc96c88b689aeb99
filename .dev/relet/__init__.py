"""relet returns Django's PostgreSQL connections to their pool as soon as they are not needed.

``import relet`` imports neither Django nor a driver, so ``settings.py`` can import it. Each name is
looked up when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relet.backends.engines import build as build
    from relet.backends.leases.findings import session_state_audit as session_state_audit
    from relet.backends.leases.hold import hold as hold
    from relet.backends.leases.policies import policies as policies
    from relet.backends.pools import close_all as close_all
    from relet.core.policy import ReleasePolicy as ReleasePolicy

    __version__: str

#: Public name -> the module that defines it.
_MODULES = {
    "ReleasePolicy": "relet.core.policy",
    "build": "relet.backends.engines",
    "close_all": "relet.backends.pools",
    "hold": "relet.backends.leases.hold",
    "policies": "relet.backends.leases.policies",
    "session_state_audit": "relet.backends.leases.findings",
}

__all__ = [
    "ReleasePolicy",
    "__version__",
    "build",
    "close_all",
    "hold",
    "policies",
    "session_state_audit",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("relet")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
