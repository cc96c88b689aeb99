"""Assignments: settings that are set, to values that may contain parameters.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .effects import AnyStep, Change, Kind, Name, Open, Parameter, Unresolved
from .names import UNKNOWN_NAME, fits

#: Settings that end with the transaction. Others with similar names do not, such as
#: ``transaction_timeout``.
OF_THE_TRANSACTION = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
#: Settings that are no plain ones.
_SPECIAL = ("role", "search_path", "seed", "session_authorization")
#: The SQL value NULL.
NULL: Name = ()

_TRUE = (True, "true", "t", "yes", "y", "on", "1")
_FALSE = (False, None, "false", "f", "no", "n", "off", "0")


def setting_change(name: str, undoes: bool) -> Change:
    """Return the change that setting *name* makes, or undoes."""
    if name == "seed":
        return Change(Kind.SEED, None)  # RESET does not undo it
    kind = Kind.ROLE if name in ("role", "session_authorization") else Kind.SETTING
    return Change(kind, (name,), undoes)


def makes_temporary(search_path: str) -> bool:
    """Return whether CREATE TABLE may create temporary tables with this search path.

    It uses the first schema that exists, and the text does not show which schemas exist.
    """
    lowered = search_path.lower()
    return "pg_temp" in lowered or (
        UNKNOWN_NAME in lowered
        and any(fits("pg_temp", part.strip()) for part in lowered.split(","))
    )


@dataclass(frozen=True)
class Assignment(Open):
    """A call of ``set_config()``, or ``SET``.

    :param name: the name of the setting; None if it is unknown.
    :param value: the value as text, or `NULL`, which sets the default; None if it is unknown.
    :param local: whether it is set for the transaction only; None if that is unknown.
    :param once: whether it is certain to happen.
    """

    name: Name | None
    value: Name | None
    local: bool | Parameter | None
    once: bool = True

    def steps(self) -> Iterable[AnyStep]:
        """Return its steps. Without parameters, these are changes."""
        pieces = (*(self.name or ()), *(self.value or ()), self.local)
        if any(isinstance(piece, Parameter) for piece in pieces):
            return (self,)
        return self.changes(None)

    def changes(self, params: object) -> Iterator[Change]:
        local = self._is_local(params)
        try:
            name = (_text(self.name, params) or "").lower()
            if UNKNOWN_NAME in name and any(fits(special, name) for special in _SPECIAL):
                raise Unresolved
        except Unresolved:
            yield Change(Kind.SEED, None)
            if not local:
                yield Change(Kind.ROLE, None)
                yield Change(Kind.SETTING, None)
            if self._may_be_temporary(params):
                yield Change(Kind.TEMPORARY, None)
            return
        if name == "seed":
            yield setting_change(name, undoes=False)  # not even ROLLBACK undoes it
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
            return None  # the parameter is not a boolean

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
    """Return the text that *pieces* make together, or None for NULL.

    :raises Unresolved: the text is unknown.
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
            raise Unresolved  # the driver decides how it is written
        texts.append(str(value))
    return "".join(texts)
