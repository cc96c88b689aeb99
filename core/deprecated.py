"""Deprecated names. Each works for one version more, and warns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import getattr_static
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


#: Old name of a method of `PoolAdapter` -> its new name.
_RENAMED = {
    "doubts": "option_warnings",
    "reuses": "is_pooling",
    "run": "execute_internal",
    "settings": "driver_state",
    "silent": "has_unread_data",
    "text": "sql_text",
    "truths": "boolean_columns",
}
#: The one that returns the opposite of the method by its new name.
_OPPOSITE = "silent"


class RenamedMethods:
    """A base class that keeps the old method names of `PoolAdapter` working, with a warning.

    A method that a subclass, or another base class of it, defines by its old name is defined by its
    new name, too. Each class can be asked for its methods by their old names.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for old, new in _RENAMED.items():
            definer = next(other for other in cls.__mro__ if _defines(other, old, new))
            if new not in vars(definer):
                level = _level_of_definition()
                warn_renamed(f"{definer.__qualname__}.{old}()", _new_name(old), level)
                method = vars(definer)[old]
                setattr(cls, new, _opposite(method) if old == _OPPOSITE else method)
            if isinstance(getattr_static(cls, old, _NONE), _OldName):
                setattr(cls, old, _OldName(cls, old))


def _level_of_definition() -> int:
    """Return the ``stacklevel`` of the line that defines a class, for `warn_renamed` in the caller.

    Python's own metaclasses and base classes, in which relet's are called, are not that line.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__") in _NOT_THE_LINE:
        frame, level = frame.f_back, level + 1
    return level


_NOT_THE_LINE = (__name__, "abc", "typing")


class _OldName:
    """An attribute of *owner* that warns, and is the method by its new name.

    That is looked up from *owner* on, so an overriding method can call ``super()`` by an old name.
    """

    def __init__(self, owner: type, old: str) -> None:
        self._owner = owner
        self._old = old

    def __get__(self, instance: Any, cls: type) -> Any:
        old, new, order = self._old, _RENAMED[self._old], cls.__mro__
        warn_renamed(f"{cls.__qualname__}.{old}()", _new_name(old))
        classes = order[order.index(self._owner) :]
        method = next(vars(other)[new] for other in classes if new in vars(other))
        if old == _OPPOSITE:
            method = _opposite(method)
        return method.__get__(instance, cls)


#: For a class that has no attribute of the name.
_NONE = _OldName(object, "")


def _defines(cls: type, old: str, new: str) -> bool:
    """Return whether *cls* has the method, by either name."""
    # Something that is not a method may have the old name by chance.
    found = vars(cls).get(old)
    method = callable(found) or isinstance(found, classmethod)
    return new in vars(cls) or method


def _new_name(old: str) -> str:
    said = ", which returns the opposite" if old == _OPPOSITE else ""
    return f"{_RENAMED[old]}(){said}"


def _opposite(method: Any) -> Callable[[Any, Any], bool]:
    return lambda self, raw: not method(self, raw)
