"""Engines: ``relet.backends.<name>.base`` for every registered adapter.

Django imports ``<ENGINE>.base`` and takes ``DatabaseWrapper`` from it. The built-in engines have
a two-line file each. For adapters from plugins, a finder at the end of `sys.meta_path` makes the
module when it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from relet.core import (
    AdapterSpec,
    MissingDependency,
    RegistryError,
    UnknownAdapter,
    engine_names,
    registry,
)

if TYPE_CHECKING:
    from relet.backends.wrapper.wrapper import LeasingWrapper


def build(
    adapter: str, base: str | type | None = None, *, module: str | None = None
) -> type[LeasingWrapper]:
    """Return a ``DatabaseWrapper`` class that leases from *adapter*'s pools.

    :param adapter: the name of a registered adapter.
    :param base: the Django backend to build on, such as
        ``"django.contrib.gis.db.backends.postgis"``, or its ``DatabaseWrapper``. Defaults to the
        adapter's own backend. Methods of *base* come first; their ``super()`` calls reach relet.
    :param module: the ``__module__`` of the class.
    :raises ImportError: the adapter is not registered, its plugin is broken, or one of its
        dependencies is missing.
    :raises ImproperlyConfigured: *base* uses another driver than the adapter.

    To make an engine of your own from another backend, write a module ``base`` with this line::

        DatabaseWrapper = build("psycopg", base="django.contrib.gis.db.backends.postgis")
    """
    if module is not None:
        # Django imports "<ENGINE>.base". If ENGINE already ends with ".base", only a package lets
        # the import hook of `relet` be asked, which says so.
        vars(sys.modules[module]).setdefault("__path__", [])
    try:
        adapter_class = registry.load(adapter)
        own = _own_wrapper(registry.spec(adapter))
    except (UnknownAdapter, MissingDependency, RegistryError) as error:
        raise ImportError(str(error)) from error
    # Imported late: these import Django's backend, which imports its driver.
    from django.db.backends.base.base import BaseDatabaseWrapper

    from relet.backends.compat.postgis import GeometryAdapters
    from relet.backends.compat.tracked_settings import SettingsReplay
    from relet.backends.wrapper.wrapper import LeasingWrapper

    other = own if base is None else _database_wrapper(base)
    if not _is_subclass(other, BaseDatabaseWrapper):
        raise ImproperlyConfigured(
            f"build({adapter!r}, base={base!r}): 'base' must be the dotted path of a Django "
            f"backend, such as {registry.spec(adapter).backend!r}, or its DatabaseWrapper class."
        )
    if not (issubclass(other, own) or issubclass(own, other)):
        raise ImproperlyConfigured(
            f"build({adapter!r}, base=...): {other.__module__}.{other.__qualname__} is for another "
            f"driver. Use a backend built on {registry.spec(adapter).backend!r}."
        )
    attributes = {
        "__doc__": f"{other.display_name} over the adapter {adapter!r}.",
        "__module__": module or __name__,
        "adapter_class": adapter_class,
        "plain_backend": other,
        "driver_backend": own,
    }
    leasing = type("DatabaseWrapper", (LeasingWrapper, own), attributes)
    if issubclass(own, other):
        return leasing
    above = [other]
    if other._cursor is not own._cursor:
        above.insert(0, SettingsReplay)
    if hasattr(other, "register_geometry_adapters"):
        above.insert(0, GeometryAdapters)
    return type("DatabaseWrapper", (*above, leasing), attributes)


def _database_wrapper(backend: str | type) -> Any:
    """Return the ``DatabaseWrapper`` class that Django would use for *backend*."""
    if isinstance(backend, str):
        return import_module(f"{backend}.base").DatabaseWrapper
    return backend


def _own_wrapper(spec: AdapterSpec) -> Any:
    """Return the ``DatabaseWrapper`` class on which the adapter of *spec* builds.

    :raises RegistryError: there is none.
    """
    path = f"{spec.backend}.base"
    try:
        return _database_wrapper(spec.backend)
    except (ModuleNotFoundError, AttributeError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else path
        if missing is None or not f"{path}.".startswith(f"{missing}."):
            raise  # the backend itself lacks something
        raise RegistryError(
            f"{registry.described(spec)}: 'backend' is {spec.backend!r}; it must be the dotted "
            f"path of a Django backend, such as {AdapterSpec.backend!r}, but {error}."
        ) from error


def _is_subclass(found: object, cls: type) -> bool:
    return isinstance(found, type) and issubclass(found, cls)


def _is_known(adapter: str) -> bool:
    try:
        registry.spec(adapter)
    except UnknownAdapter:
        return False
    return True


class EngineFinder(MetaPathFinder, Loader):
    """Import hook that makes ``<package>.<adapter>`` and ``<package>.<adapter>.base``."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent == self.package:
            try:
                registry.spec(name)
            except UnknownAdapter as error:
                text = f"{fullname}: {error}{engine_names.remark(name)}"
                raise ModuleNotFoundError(text, name=fullname) from error
            return ModuleSpec(fullname, self, is_package=True)
        grandparent, _, adapter = parent.rpartition(".")
        if grandparent == self.package and name == "base" and _is_known(adapter):
            return ModuleSpec(fullname, self)
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__.endswith(".base"):
            adapter = module.__name__.split(".")[-2]
            wrapper: Any = build(adapter, module=module.__name__)
            vars(module).update(
                __doc__=wrapper.__doc__, __all__=["DatabaseWrapper"], DatabaseWrapper=wrapper
            )


def install(package: str) -> None:
    """Make the engines of *package* importable. Files take precedence over made modules."""
    if not any(isinstance(finder, EngineFinder) for finder in sys.meta_path):
        sys.meta_path.append(EngineFinder(package))
