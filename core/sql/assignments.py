"""Assignments: settings that are set to something, of which parameters may be parts.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .effects import AnyStep, Change, Kind, Name, Open, Parameter, Unresolved

#: These end with it. There are others called alike that do not (``transaction_timeout``).
OF_THE_TRANSACTION = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
#: The value NULL.
NULL: Name = ()

_TRUE = (True, "true", "t", "yes", "y", "on", "1")
_FALSE = (False, None, "false", "f", "no", "n", "off", "0")


def setting_change(name: str, undoes: bool) -> Change:
    """Return what it is that a setting is set."""
    if name == "seed":
        return Change(Kind.SEED, None)  # RESET does not take it back
    kind = Kind.ROLE if name in ("role", "session_authorization") else Kind.SETTING
    return Change(kind, (name,), undoes)


def makes_temporary(search_path: str) -> bool:
    """Whether CREATE TABLE may make temporary ones, with that search path.

    It makes them in the first schema that exists, and nobody can tell which do.
    """
    return "pg_temp" in search_path.lower()


@dataclass(frozen=True)
class Assignment(Open):
    """``set_config()``, or ``SET``.

    :param name: what is set; None if that cannot be told.
    :param value: its text, or `NULL`, which sets the default; None if that cannot be told.
    :param local: whether only for the transaction; None if that cannot be told.
    :param once: whether it is certain to happen.
    """

    name: Name | None
    value: Name | None
    local: bool | Parameter | None
    once: bool = True

    def steps(self) -> Iterable[AnyStep]:
        """Return the steps: changes, if no parameter is a part of it."""
        pieces = (*(self.name or ()), *(self.value or ()), self.local)
        if any(isinstance(piece, Parameter) for piece in pieces):
            return (self,)
        return self.changes(None)

    def changes(self, params: object) -> Iterator[Change]:
        local = self._is_local(params)
        try:
            name = (_text(self.name, params) or "").lower()
        except Unresolved:
            yield Change(Kind.SEED, None)
            if not local:
                yield Change(Kind.ROLE, None)
                yield Change(Kind.SETTING, None)
            if self._may_be_temporary(params):
                yield Change(Kind.TEMPORARY, None)
            return
        if name == "seed":
            yield setting_change(name, undoes=False)  # not even ROLLBACK takes it back
        elif not local and name not in OF_THE_TRANSACTION:
            change = setting_change(name, undoes=self._is_null(params))
            yield change._replace(sure=not change.undoes or (self.once and local is False))
        if name == "search_path" and self._may_be_temporary(params):
            yield Change(Kind.TEMPORARY, None)

    def doubted(self) -> Assignment:
        return replace(self, once=False)

    def _is_local(self, params: object) -> bool | None:
        if not isinstance(self.local, Parameter):
            return self.local
        try:
            value = self.local.value(params)
            return True if value in _TRUE else False if value in _FALSE else None
        except (Unresolved, TypeError, ValueError):
            return None  # it is no truth value at all

    def _is_null(self, params: object) -> bool:
        try:
            return _text(self.value, params) is None
        except Unresolved:
            return False

    def _may_be_temporary(self, params: object) -> bool:
        try:
            return makes_temporary(_text(self.value, params) or "")
        except Unresolved:
            return True


def _text(pieces: Name | None, params: object) -> str | None:
    """Return what *pieces* are together; None if that is NULL.

    :raises Unresolved: it cannot be told.
    """
    if pieces is None:
        raise Unresolved
    if pieces == NULL:
        return None
    texts: list[str] = []
    for piece in pieces:
        value = piece.value(params) if isinstance(piece, Parameter) else piece
        if value is None:
            return None
        if not isinstance(value, (str, int)):
            raise Unresolved  # what a driver makes of it
        texts.append(str(value))
    return "".join(texts)
