"""Install: every side effect of importing relet's Django layer, in one place."""

from __future__ import annotations

import atexit

from django.core import checks
from django.core.signals import request_finished

from . import engines, fork
from .checks import check_databases
from .leases import lifetimes
from .observe import signals
from .pools import pools


def install(package: str) -> None:
    """Make the engines of *package* importable, and register with Django and Python.

    Calling it twice, as after an interrupted import, has the same effect as calling it once.
    """
    engines.install(package)
    # Not in an AppConfig: the check must also report engines that cannot be imported.
    checks.register(check_databases, "relet")
    request_finished.connect(pools.close_removed_aliases, dispatch_uid="relet.aliases")
    atexit.unregister(lifetimes.close_at_exit)
    atexit.register(lifetimes.close_at_exit)
    fork.install()
    signals.report = _dump


def _dump() -> str:
    from .reports.dump import dump

    return dump()
