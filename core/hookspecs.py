"""The hooks of relet. They are for discovery; none is called while statements run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .policy import ReleasePolicy

hookspec = pluggy.HookspecMarker("relet")
hookimpl = pluggy.HookimplMarker("relet")


@dataclass(frozen=True)
class AdapterSpec:
    """How to find an adapter without importing it or its driver.

    :param name: an identifier. The engine is ``relet.backends.<name>``.
    :param adapter: the `PoolAdapter` subclass, as ``"package.module:Class"``.
    :param requires: modules that must be importable, each as ``"module"`` or
        ``"module>=version"``, which is the version of the distribution that provides the module.
        A tuple lists alternatives; the first that is installed must be new enough.
    :param install: the argument for ``pip install`` that installs the required modules.
    :param backend: the Django backend that the engine builds on.
    :param aliases: other names of the adapter; ``relet.backends.<alias>`` is the same engine.
    """

    name: str
    adapter: str
    requires: tuple[str | tuple[str, ...], ...] = ()
    install: str = ""
    backend: str = "django.db.backends.postgresql"
    aliases: tuple[str, ...] = ()


@hookspec
def relet_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """Return the adapters that this plugin provides.

    A plugin is a module, or any other object, with functions marked ``@hookimpl``. It is registered
    in the entry-point group ``relet``. The hook is called once per process, when the first engine
    is imported.
    """


@hookspec
def relet_policies() -> Mapping[str, ReleasePolicy]:  # type: ignore[empty-body]
    """Return the policies that this plugin provides, by name.

    A name can be used as ``OPTIONS["policy"]``. It must not contain a dot, because a name with a
    dot is imported as a dotted path. The hook is called once per process, when the first engine is
    imported.
    """
