"""Facts: what a driver's connection says of itself, for `relet.core.facts.Facts`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Set
from functools import cache
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
    kind: Any = type(raw)  # Any: mypy takes type[Any] for something that cannot be hashed
    kind_of_info: Any = type(info)
    return Facts(
        kind=kind,
        names=frozenset(dir(raw)),
        values={
            **attributes(raw, (*told, *exceptions(kind))),
            **attributes(info, properties(kind_of_info) - of_session, "info"),
        },
        parts={"info"},
        of_session={"fileno", *(f"info.{name}" for name in of_session)},
        **others,
    )


def attributes(owner: Any, names: Iterable[str], part: str = "") -> dict[str, Any]:
    """Return the attributes *names* of *owner*, prefixed with the name of the part, if any."""
    prefix = f"{part}." if part else ""
    # Each is read once: some take a while to answer.
    found = {f"{prefix}{name}": getattr(owner, name, _ABSENT) for name in names}
    return {name: value for name, value in found.items() if value is not _ABSENT}


_ABSENT = object()


@cache
def exceptions(kind: type) -> tuple[str, ...]:
    """Return the names of PEP 249's exceptions that connections of class *kind* have."""
    return tuple(name for name in dir(kind) if name in _EXCEPTIONS)


_EXCEPTIONS = {
    *("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError"),
    *("IntegrityError", "InternalError", "ProgrammingError", "NotSupportedError"),
}


def reported(parameter: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """Return a copy of the function *parameter* that answers with the settings of this moment."""
    return {name: parameter(name) for name in REPORTED}.get


@cache
def properties(kind: type) -> frozenset[str]:
    """Return the names of the public properties of *kind*."""
    members = inspect.getmembers(kind, inspect.isdatadescriptor)
    return frozenset(name for name, _ in members if not name.startswith("_"))


def nothing(*args: object, **kwargs: object) -> None:
    """Stand in for a method that does nothing to an idle connection, such as ``cancel()``."""
