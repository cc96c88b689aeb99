"""relet returns Django's PostgreSQL connections to their pool as soon as they are not needed.

``import relet`` imports neither Django nor a driver, so ``settings.py`` can import it. Each name is
looked up when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relet import metrics as metrics
    from relet.backends.engines import build as build
    from relet.backends.leases.findings import session_state_audit as session_state_audit
    from relet.backends.leases.hold import hold as hold
    from relet.backends.leases.policies import policies as policies
    from relet.backends.pools import close_all as close_all
    from relet.backends.prepare import add_prepare_target as add_prepare_target
    from relet.backends.prepare import prepare as prepare
    from relet.backends.prepare import prepared as prepared
    from relet.backends.reports.connections import connections as connections
    from relet.backends.reports.label import label as label
    from relet.backends.reports.plans import plans as plans
    from relet.backends.reports.pools import pools as pools
    from relet.backends.reports.queries import queries as queries
    from relet.backends.reports.routes import routes as routes
    from relet.core.policy import ReleasePolicy as ReleasePolicy

    __version__: str

#: Public name -> the module that defines it.
_MODULES = {
    "ReleasePolicy": "relet.core.policy",
    "add_prepare_target": "relet.backends.prepare",
    "build": "relet.backends.engines",
    "close_all": "relet.backends.pools",
    "connections": "relet.backends.reports.connections",
    "hold": "relet.backends.leases.hold",
    "label": "relet.backends.reports.label",
    "plans": "relet.backends.reports.plans",
    "policies": "relet.backends.leases.policies",
    "pools": "relet.backends.reports.pools",
    "prepare": "relet.backends.prepare",
    "prepared": "relet.backends.prepare",
    "queries": "relet.backends.reports.queries",
    "routes": "relet.backends.reports.routes",
    "session_state_audit": "relet.backends.leases.findings",
}

__all__ = [
    "ReleasePolicy",
    "__version__",
    "add_prepare_target",
    "build",
    "close_all",
    "connections",
    "hold",
    "label",
    "metrics",
    "plans",
    "policies",
    "pools",
    "prepare",
    "prepared",
    "queries",
    "routes",
    "session_state_audit",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("relet")
    elif name == "metrics":
        value = import_module("relet.metrics")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _EngineNames:
    """Import hook that says what to write for an ``ENGINE`` such as ``"relet"``.

    It is asked for modules that no file is for, and finds none. It is here because nothing else of
    relet's is imported by then.
    """

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> None:
        if fullname.startswith("relet."):
            check_import = import_module("relet.core.engine_names").check_import
            check_import(fullname)


if not any(type(finder).__name__ == "_EngineNames" for finder in sys.meta_path):
    sys.meta_path.append(_EngineNames())
