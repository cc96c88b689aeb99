"""Deprecated names. Each works for one version more, and warns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that *old* is now called *new*.

    :param stacklevel: as `warnings.warn` takes it; by default, that of the caller's caller.
    """
    warnings.warn(
        f"{old} is deprecated and will be removed: use {new}.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for *module* that finds names which have moved elsewhere.

    :param names: old name -> its new place, as ``"package.module:name"``.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        target, _, attribute = names[name].partition(":")
        warn_renamed(f"{module}.{name}", f"{target}.{attribute}")
        return getattr(import_module(target), attribute)

    return find


class RenamedMethods:
    """A base class that keeps the old method names of `PoolAdapter` working, with a warning."""

    #: Old method name -> new method name.
    _renamed: Mapping[str, str] = {
        "doubts": "option_warnings",
        "reuses": "is_pooling",
        "run": "execute_internal",
        "settings": "driver_state",
        "text": "sql_text",
        "truths": "boolean_columns",
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for old, new in cls._renamed.items():
            if old in vars(cls) and new not in vars(cls):
                warn_renamed(f"{cls.__qualname__}.{old}()", f"{new}()")
                setattr(cls, new, vars(cls)[old])
        if "silent" in vars(cls) and "has_unread_data" not in vars(cls):
            warn_renamed(
                f"{cls.__qualname__}.silent()", "has_unread_data(), which returns the opposite"
            )
            silent = cls.silent  # type: ignore[attr-defined]
            cls.has_unread_data = lambda self, raw: not silent(self, raw)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if (new := self._renamed.get(name)) is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn_renamed(f"{type(self).__qualname__}.{name}()", f"{new}()")
        return getattr(self, new)
