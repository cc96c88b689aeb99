"""Bodies: the effects of a function's source, and the names that it mentions."""

from __future__ import annotations

import re

from relet.core.sql.commands import steps_of_body, steps_of_statements
from relet.core.sql.effects import Change, Kind
from relet.core.sql.statements import Statement, readings, split

from .dynamic import Executed, Unreadable
from .names import UNKNOWN_NAME, Catalogue
from .queries import Routine

#: A source without any of these has no effects of its own, unless it has SET or dynamic SQL. Most
#: have none, and it takes a hundredth of the time to see that.
_TRIGGERS = (
    *("set_config", "_advisory_", "tval", "setseed", "temp", "pg_settings", "listen", 'u&"'),
    *("prepare", "deallocate", "discard", "reset", "load", "hold", "_to_xml", "ts_stat"),
    *("ts_rewrite", "_backup", "replication_"),
)
#: What is no part of a word becomes a space, and letters become small.
_SPACED = bytes(
    code if chr(code).isalnum() or code in b"_$" or code > 127 else 32
    for code in (ord(chr(code).lower()) if code < 128 else code for code in range(256))
)
#: What comes before a statement, and how far before SET it is looked for.
_BEFORE = (";", "begin", "then", "else", "loop", "*/")
_NEAR = 500
#: What other languages call to run SQL.
_RUNS_SQL = re.compile(r"execute|spi_|plpy|plv8|prepare|query|cursor", re.IGNORECASE)


def words_of(source: str) -> frozenset[bytes]:
    """Return the words of *source* in lower case, those in strings and comments, too."""
    return frozenset(source.encode(errors="replace").translate(_SPACED).split())


def may_have_effects(lowered: str) -> bool:
    """Return whether a source may have effects of its own.

    :param lowered: the source in lower case.
    """
    return "execute" in lowered or _may_set(lowered)


def _may_set(lowered: str) -> bool:
    """Return whether a source without dynamic SQL may have effects of its own."""
    for trigger in _TRIGGERS:
        if trigger in lowered:
            return True
    position = lowered.find("set")
    while position != -1:
        if _may_begin(lowered, position):
            return True
        position = lowered.find("set", position + 3)
    return False


def _may_begin(lowered: str, position: int) -> bool:
    """Return whether a statement may begin at *position*, rather than UPDATE ... SET go on."""
    near = lowered[max(0, position - _NEAR) : position]
    before = near.rstrip()
    if len(before) == len(near):
        return not near or not (near[-1].isalnum() or near[-1] in "_$")
    if not before or before.endswith(_BEFORE):
        return True
    # The line before may end with a comment, and a statement with the line before that.
    line = before.rfind("\n")
    return "--" in before[line + 1 :] or (line == -1 and len(near) == _NEAR)


class Body:
    """The source of a function, as statements.

    :ivar own: its effects, but for those of what it calls and writes.
    :ivar with_unknown_names: the statements in which names are put in at run time.
    """

    def __init__(self, routine: Routine, lowered: str) -> None:
        source = routine.source
        self.statements = _statements(source)
        found: list[Change] = []
        executed: list[str] = []
        if routine.language not in ("sql", "plpgsql"):
            # Any string in it may be SQL.
            executed = _strings(source)
            if _RUNS_SQL.search(source):
                found.append(Change(Kind.DYNAMIC, None))
                found += steps_of_body(source, True)
        elif routine.language == "plpgsql" and "execute" in lowered:
            try:
                parameters = frozenset(routine.parameters.split())
                executed = Executed(self.statements, parameters).texts()
            except Unreadable:
                executed = _strings(source)
                found.append(Change(Kind.DYNAMIC, None))
                found += steps_of_body(source, False)
            else:
                for text in executed:
                    if may_have_effects(text.lower()):
                        found += steps_of_body(text, False)
        if Change(Kind.DYNAMIC, None) not in found and _may_set(lowered):
            found += steps_of_statements(self.statements)
        for text in executed:
            self.statements += _statements(text)
        unknown = any(UNKNOWN_NAME in text for text in executed)
        self.with_unknown_names = (
            [one for one in self.statements if any(token.text == UNKNOWN_NAME for token in one)]
            if unknown
            else []
        )
        origin = f"called in function {routine.title}"
        self.own = tuple(
            change._replace(origin=change.origin or origin) for change in dict.fromkeys(found)
        )

    def changes(self, catalogue: Catalogue, *, every: bool) -> list[Change]:
        """Return the changes of what it mentions.

        :param every: whether it may mention any name, and not only those put in at run time.
        """
        statements = self.statements if every else self.with_unknown_names
        return [change for statement in statements for change in catalogue.steps_in(statement)]


def _statements(source: str) -> list[Statement]:
    return [statement for way in readings(source) for statement in split(way)]


def _strings(source: str) -> list[str]:
    return [
        token.text
        for way in readings(source)
        for token in way
        if (token.kind == "string" or token.quoted) and len(token.text) > 3
    ]
