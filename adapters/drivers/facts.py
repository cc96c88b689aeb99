"""Facts: what a driver's connection says of itself, for `relet.core.facts.Facts`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Set
from typing import Any

from relet.core import Facts

#: The settings that servers report by themselves.
#: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC
REPORTED = (
    *("application_name", "client_encoding", "DateStyle", "default_transaction_read_only"),
    *("in_hot_standby", "integer_datetimes", "IntervalStyle", "is_superuser"),
    *("scram_iterations", "search_path", "server_encoding", "server_version"),
    *("session_authorization", "standard_conforming_strings", "TimeZone"),
)


def facts(raw: Any, *, told: Iterable[str], of_session: Set[str], **others: Any) -> Facts:
    """Return the `Facts` of *raw*, a connection that has most of them in its attribute ``info``.

    :param told: the connection's own attributes that are only read.
    :param of_session: properties of ``info`` that need a connection to be answered.
    :param others: the other fields of `Facts`, except ``parts``.
    """
    info = raw.info
    return Facts(
        kind=type(raw),
        names=frozenset(dir(raw)),
        values={
            **attributes(raw, (*told, *exceptions(type(raw)))),
            **attributes(info, properties(type(info)) - of_session, "info"),
        },
        parts={"info"},
        of_session={"fileno", *(f"info.{name}" for name in of_session)},
        **others,
    )


def attributes(owner: Any, names: Iterable[str], part: str = "") -> dict[str, Any]:
    """Return the attributes *names* of *owner*, prefixed with the name of the part, if any."""
    prefix = f"{part}." if part else ""
    return {f"{prefix}{name}": getattr(owner, name) for name in names if hasattr(owner, name)}


def exceptions(kind: type) -> list[str]:
    """Return the names of PEP 249's exceptions that connections of class *kind* have."""
    return [name for name in dir(kind) if name in _EXCEPTIONS]


_EXCEPTIONS = {
    *("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError"),
    *("IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError"),
}


def reported(parameter: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """Return a copy of the function *parameter* that answers with the settings of this moment."""
    return {name: parameter(name) for name in REPORTED}.get


def properties(kind: type) -> set[str]:
    """Return the names of the public properties of *kind*."""
    members = inspect.getmembers(kind, inspect.isdatadescriptor)
    return {name for name, _ in members if not name.startswith("_")}


def nothing(*args: object, **kwargs: object) -> None:
    """Stand in for a method that does nothing to an idle connection, such as ``cancel()``."""
