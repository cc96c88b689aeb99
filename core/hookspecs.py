"""The hooks of relet. They discover; none is called while statements run."""

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
    """How to find an adapter, without importing it or its driver.

    :param name: an identifier; the engine will be ``relet.backends.<name>``.
    :param adapter: the `PoolAdapter` subclass, as ``"package.module:Class"``.
    :param requires: modules that must be importable, each as ``"module"`` or
        ``"module>=version"``, the version being that of the distribution that has it. Of a tuple
        among them any one will do; the first that is there must be new enough.
    :param install: what ``pip install`` is to be given when they are not.
    :param backend: the Django backend the engine builds on.
    :param aliases: other names for it; ``relet.backends.<alias>`` is the same engine.
    """

    name: str
    adapter: str
    requires: tuple[str | tuple[str, ...], ...] = ()
    install: str = ""
    backend: str = "django.db.backends.postgresql"
    aliases: tuple[str, ...] = ()


@hookspec
def relet_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """Return the adapters that this plugin brings.

    A plugin is a module, or any object, with functions marked ``@hookimpl``,
    registered under the entry-point group ``relet``. Called once per process,
    when the first engine is imported.
    """


@hookspec
def relet_policies() -> Mapping[str, ReleasePolicy]:  # type: ignore[empty-body]
    """Return the policies that this plugin brings, by name.

    ``OPTIONS["policy"]`` can be such a name. It has no dot, for a name with a dot is a
    path to import. Called once per process, when the first engine is imported.
    """
