"""Bodies: the effects of a function's source, and the names that it mentions."""

from __future__ import annotations

import re

from relet.core.sql.commands import steps_of_body
from relet.core.sql.effects import Change, Kind
from relet.core.sql.statements import Statement, readings, split

from .dynamic import Executed, Unreadable
from .names import UNKNOWN_NAME, Catalogue
from .queries import Routine

#: A source without any of these has no effects of its own. Most have none, and it takes a
#: hundredth of the time to see that.
_TRIGGERS = (
    *("set_config", "_advisory_", "tval", "setseed", "temp", "pg_settings", "execute", "listen"),
    *("prepare", "deallocate", "discard", "reset", "load", "hold", 'u&"'),
    *("_to_xml", "ts_stat", "ts_rewrite", "_backup", "replication_"),
)
#: SET, and where it is a part of another command.
_SET = re.compile(r"set(?<![\w$]set)(?![\w$])")
_SET_OF_OTHERS = re.compile(
    r"update\s+(?:only\s+)?[\w$.\"%]+(?:\s+\*)?(?:\s+(?:as\s+)?[\w$]+)?\s+set(?![\w$])"
    r"|update\s+set(?![\w$])"
)
#: What other languages call to run SQL.
_RUNS_SQL = re.compile(r"execute|spi_|plpy|plv8|prepare|query|cursor")


def may_have_effects(lowered: str) -> bool:
    """Return whether a source may have effects of its own.

    :param lowered: the source in lower case.
    """
    for trigger in _TRIGGERS:
        if trigger in lowered:
            return True
    sets = len(_SET.findall(lowered)) if "set" in lowered else 0
    return sets > 0 and sets > len(_SET_OF_OTHERS.findall(lowered))


class Body:
    """The source of a function, as statements.

    :ivar own: its effects, but for those of what it calls and writes.
    :ivar has_unknown_names: whether it uses names that are put in at run time.
    """

    def __init__(self, routine: Routine, *, own: bool = True) -> None:
        source, language = routine.source, routine.language
        self.statements: list[Statement] = []
        texts = [source]
        self.own: tuple[Change, ...] = ()
        found: list[Change] = []
        if language not in ("sql", "plpgsql"):
            # Any string in it may be SQL.
            if _RUNS_SQL.search(source.lower()):
                found.append(Change(Kind.DYNAMIC, None))
                found += steps_of_body(source, True) if own else ()
            texts += _strings(source)
        elif language == "plpgsql":
            statements = [one for way in readings(source) for one in split(way)]
            try:
                executed = Executed(statements, routine.parameters).texts()
            except Unreadable:
                found.append(Change(Kind.DYNAMIC, None))
                found += steps_of_body(source, False) if own else ()
                executed = _strings(source)
            else:
                if own:
                    found += steps_of_body(source, None)
                    for text in executed:
                        found += steps_of_body(text, False)
            self.statements += statements
            texts = executed
        else:
            found += steps_of_body(source, None) if own else ()
        for text in texts:
            self.statements += [one for way in readings(text) for one in split(way)]
        self.has_unknown_names = any(
            token.text == UNKNOWN_NAME for statement in self.statements for token in statement
        )
        origin = f"called in function {routine.title}"
        self.own = tuple(
            change._replace(origin=change.origin or origin) for change in dict.fromkeys(found)
        )

    def changes(self, catalogue: Catalogue) -> list[Change]:
        """Return the changes of what it mentions."""
        return [change for statement in self.statements for change in catalogue.steps_in(statement)]


def _strings(source: str) -> list[str]:
    return [
        token.text
        for way in readings(source)
        for token in way
        if (token.kind == "string" or token.quoted) and len(token.text) > 3
    ]
