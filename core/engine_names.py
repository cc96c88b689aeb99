"""Engine names: what to write as ``ENGINE`` for a name that is almost one.

Django imports ``<ENGINE>.base``, so a wrong ENGINE is an import of a module that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import UnknownEngine, closest
from .registry import registry

#: What is written for an adapter that has another name, and the adapter's name.
_MEANT = {"psycopg2": "sqlalchemy", "psycopg3": "psycopg", "psycopg_pool": "psycopg"}
#: What else there is to say about a name.
_REMARKS = {
    "psycopg2": " 'relet.backends.sqlalchemy' runs on psycopg2 where psycopg 3 is not installed.",
    "postgis": " For PostGIS, write an engine of your own with relet.build(..., base=...).",
}
#: Modules in which other packages keep their engines.
_FOLDERS = ("adapters", "backend", "db", "django", "engine", "engines")


def check_import(module: str) -> None:
    """Raise what to write instead, if importing *module* looks for an engine that does not exist.

    :param module: the full name of a module of relet that no file is for.
    :raises UnknownEngine: *module* is ``<ENGINE>.base``, or the engine itself.
    """
    package, _, last = module.rpartition(".")
    if last != "base":
        # relet.psycopg.base is looked for only when relet.psycopg is found.
        if package == "relet" and (last in _FOLDERS or _adapter(last) is not None):
            raise UnknownEngine(module, _engine(last), remark(last))
        return
    if package.startswith("relet.backends."):
        parts = package.split(".")
        if parts[3:] == ["base"]:
            raise UnknownEngine(
                package, _engine(parts[2]), " Django appends '.base' to ENGINE itself."
            )
    elif package.partition(".")[0] == "relet":
        raise UnknownEngine(package, _engine(package.rpartition(".")[2]), remark(package))


def remark(name: str) -> str:
    """Return what else there is to say about *name*, with a space before it; else ``""``."""
    return _REMARKS.get(name.rpartition(".")[2], "")


def _engine(name: str) -> str:
    return f"relet.backends.{_adapter(name) or 'psycopg'}"


def _adapter(name: str) -> str | None:
    """Return the adapter or alias that is probably meant by *name*, or None."""
    known = _known()
    meant = _MEANT.get(name, name)
    return meant if meant in known else closest(meant, known)


def _known() -> Mapping[str, object]:
    specs = registry.specs()
    return {**specs, **{alias: spec for spec in specs.values() for alias in spec.aliases}}
