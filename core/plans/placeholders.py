"""Placeholders: a text with ``%s`` as the server has it, with ``$1``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PLACEHOLDER = re.compile(r"%%|%(?:\(([^()%]*)\))?[sbt]")


class Unfit(Exception):
    """The parameters do not fit the text. The driver says so in its own words."""


class Native:
    """A text with numbered placeholders.

    :ivar sql: the text for the server.
    :ivar names: the name of each placeholder, in the order of their numbers; None if the
        placeholders of the text have none. A name that is used twice has two numbers: what is
        written twice may have two types.
    :ivar count: how many parameters there are.
    """

    __slots__ = ("count", "names", "sql")

    def __init__(self, sql: str) -> None:
        names: list[str] = []
        count = 0

        def numbered(match: re.Match[str]) -> str:
            nonlocal count
            if match.group() == "%%":
                return "%"
            count += 1
            if match[1] is not None:
                names.append(match[1])
            return f"${count}"

        self.sql = _PLACEHOLDER.sub(numbered, sql)
        self.names = tuple(names) if names else None
        self.count = count

    def values(self, params: Any) -> Sequence[Any]:
        """Return the parameters in order.

        :raises Unfit: there are others.
        """
        if self.names is not None:
            if isinstance(params, Mapping):
                try:
                    return [params[name] for name in self.names]
                except KeyError:
                    pass
        elif params.__class__ in (tuple, list) and len(params) == self.count:
            found: Sequence[Any] = params
            return found
        raise Unfit
