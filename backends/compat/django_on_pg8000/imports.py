"""PatchedImports: runs modules of Django that import psycopg with a replacement of psycopg.

No global state changes. Each of these modules gets its own ``__import__``, so psycopg may be
missing, or be used by other engines at the same time.

https://docs.python.org/3/library/functions.html#exec
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, resolve_name
from types import ModuleType
from typing import Any


class PatchedImports:
    """Modules that run, once each, with some of their imports replaced.

    :param replaced: the replacements, by module name.
    :param run: names of modules that are patched in the same way when these modules import them.
    """

    def __init__(self, replaced: Mapping[str, Any], run: Sequence[str]) -> None:
        self._found: dict[str, Any] = dict(replaced)
        self._run = frozenset(run)
        self._packages = frozenset(name for name in replaced if "." not in name)

    def load(self, name: str, module: ModuleType | None = None) -> Any:
        """Return the patched module *name*; run it on first use.

        :param module: the module object to run it in. By default, a new one.
        :raises ImportError: it does not exist, or an import of it has no replacement.
        """
        if (found := self._found.get(name)) is not None:
            return found
        package = name.rpartition(".")[0]
        # The original file, even if another finder or sys.modules has a different module.
        spec = PathFinder.find_spec(name, import_module(package).__path__)
        if spec is None or spec.loader is None:
            raise ImportError(f"No module named {name!r}", name=name)
        if module is None:
            module = module_from_spec(spec)
        module.__file__, module.__package__ = spec.origin, package
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        self._found[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del self._found[name]
            raise
        return module

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the name in __import__()
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        absolute = name
        if level and globals is not None:
            absolute = resolve_name("." * level + name, globals["__package__"])
        if absolute in self._found or absolute in self._run:
            return self.load(absolute)
        package = absolute.partition(".")[0]
        if package in self._packages:
            importer = (globals or {}).get("__name__")
            raise ImportError(f"{importer} imports {absolute!r}, which has no pg8000 equivalent")
        return builtins.__import__(name, globals, locals, fromlist or (), level)
