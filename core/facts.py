"""Facts: attributes of a driver connection, cached so that reading them takes no lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """The attributes that all idle connections of one pool have in common.

    A name may have two parts: ``info.host`` is the ``host`` of the connection's ``info``. Reading
    an attribute listed here neither changes the connection nor uses its session. Reading any other
    attribute counts as using the connection.

    :param kind: the class of the driver's connections.
    :param names: all attribute names of a connection.
    :param values: attribute name -> its value on an idle connection.
    :param methods: method name -> a function that does what the method does on an idle connection.
    :param parts: attributes whose own attributes are looked up here, such as ``info``.
    :param of_session: attributes that have no value without a connection, such as
        ``info.backend_pid``.
    :param blocks: methods that return a context manager inside which the driver does not say
        whether something is open. The lease lasts until the block ends.
    """

    kind: type
    names: Set[str]
    values: Mapping[str, Any]
    methods: Mapping[str, Callable[..., Any]]
    parts: Set[str] = frozenset()
    of_session: Set[str] = frozenset()
    blocks: Set[str] = frozenset()
