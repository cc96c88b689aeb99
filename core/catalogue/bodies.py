"""Bodies: the effects of a function's source, and the names that it mentions."""

from __future__ import annotations

import re

from relet.core.sql.commands import steps_of_code
from relet.core.sql.effects import Change, Kind
from relet.core.sql.lines import Clues, Lines, has_clue
from relet.core.sql.names import UNKNOWN_NAME
from relet.core.sql.procedural import Code

from .names import Catalogue
from .queries import Routine

#: A source without any of these has no effects of its own, unless it has SET or dynamic SQL. Most
#: have none, and it takes a hundredth of the time to see that.
_CLUES: Clues = (
    *(("set", part) for part in ("set_config", "setseed", "pg_settings", "reset")),
    *(("drop", part) for part in ("drop table", "drop view", "drop sequence")),
    ("&", 'u&"'),
    *(("_advisory_",), ("tval",), ("temp",), ("listen",), ("prepare",), ("deallocate",)),
    *(("discard",), ("load",), ("hold",), ("_to_xml",), ("ts_stat",), ("ts_rewrite",)),
    *(("_backup",), ("replication_",), ("rename",), ("schema",), (f"{UNKNOWN_NAME}.",)),
)
#: What comes before a statement, and how far before SET it is looked for.
_BEFORE = (";", "begin", "then", "else", "loop", "*/")
_NEAR = 500
#: What other languages call to run SQL.
_RUNS_SQL = re.compile(r"execute|spi_|plpy|plv8|prepare|query|cursor", re.IGNORECASE)


def may_set(lines: Lines) -> set[int]:
    """Return the positions of sources that may have effects of their own without dynamic SQL."""
    found = lines.having_clue(_CLUES)
    found.update(at for at in lines.having("set") - found if _has_set(lines.lowered[at]))
    return found


def _may_have_effects(lowered: str) -> bool:
    """Return whether a text that a source runs may have effects of its own.

    :param lowered: the text in lower case.
    """
    return "execute" in lowered or has_clue(lowered, _CLUES) or _has_set(lowered)


def _has_set(lowered: str) -> bool:
    """Return whether a text may have a statement that begins with SET."""
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

    :param may_set: whether `may_set` has found it.

    :ivar own: its effects, but for those of what it calls and writes.
    :ivar texts: the texts that it may run.
    :ivar with_unknown_names: the statements in which names are put in at run time.
    """

    def __init__(self, routine: Routine, *, may_set: bool) -> None:
        source, language = routine.source, routine.language
        foreign = language not in ("sql", "plpgsql")
        code = Code(
            source,
            procedural=language == "plpgsql",
            strings_run=foreign,
            parameters=routine.types,
        )
        found: list[Change] = []
        if foreign:
            if _RUNS_SQL.search(source):
                found = [Change(Kind.DYNAMIC, None), *steps_of_code(code)]
        elif (
            not (code.is_readable and code.is_whole)
            or may_set
            or any(_may_have_effects(text.lower()) for text in code.texts)
        ):
            found = list(steps_of_code(code))
        self.statements, self.texts = code.statements, code.texts
        self.with_unknown_names = (
            [one for one in code.statements if any(UNKNOWN_NAME in token.text for token in one)]
            if any(UNKNOWN_NAME in text for text in code.texts)
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
