"""Install: all that importing relet's Django layer does to the process, in one place."""

from __future__ import annotations

import atexit

from django.core import checks
from django.core.signals import request_finished

from . import engines, fork
from .checks import check_databases
from .leases import lifetimes
from .pools import pools


def install(package: str) -> None:
    """Make the engines of *package* importable, and listen to Django and to Python.

    Installed twice, as when the import was interrupted, it does no more than once.
    """
    engines.install(package)
    # An engine that cannot be imported is to be told of, too, so not by an AppConfig.
    checks.register(check_databases, "relet")
    request_finished.connect(pools.look_at_aliases, dispatch_uid="relet.aliases")
    atexit.unregister(lifetimes.close_at_exit)
    atexit.register(lifetimes.close_at_exit)
    fork.install()
