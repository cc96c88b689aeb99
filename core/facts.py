"""Facts: what a driver's connection tells of itself, kept so that it can be told without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What the connections of one pool tell while they are at rest.

    A name may lead into a part: ``info.host`` is the ``host`` of the connection's ``info``. Reading
    what is named here changes nothing of a connection and uses nothing of its session. Every other
    name counts as a use.

    :param kind: the class of the driver's connections.
    :param names: all names that a connection has.
    :param values: what attributes are at rest.
    :param methods: what stands for a method at rest, and does what it would do then.
    :param parts: attributes whose own attributes are looked at.
    :param of_session: what has no answer without a connection, such as ``info.backend_pid``.
    :param blocks: methods that return a block, in which the driver does not tell whether something
        is open; so the lease lasts as long.
    """

    kind: type
    names: Set[str]
    values: Mapping[str, Any]
    methods: Mapping[str, Callable[..., Any]]
    parts: Set[str] = frozenset()
    of_session: Set[str] = frozenset()
    blocks: Set[str] = frozenset()
