"""The hooks of relet. They discover; none is called while statements run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

hookspec = pluggy.HookspecMarker("relet")
hookimpl = pluggy.HookimplMarker("relet")


@dataclass(frozen=True)
class AdapterSpec:
    """How to find an adapter, without importing it or its driver.

    :param name: an identifier; the engine will be ``relet.backends.<name>``.
    :param adapter: the `PoolAdapter` subclass, as ``"package.module:Class"``.
    :param requires: modules that must be importable.
    :param install: what ``pip install`` is to be given when they are not.
    :param backend: the Django backend the engine builds on.
    """

    name: str
    adapter: str
    requires: tuple[str, ...] = ()
    install: str = ""
    backend: str = "django.db.backends.postgresql"


@hookspec
def relet_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """Return the adapters that this plugin brings.

    A plugin is a module, or any object, with functions marked ``@hookimpl``,
    registered under the entry-point group ``relet``. Called once per process,
    when the first engine is imported.
    """
