"""Local changes: what statements change until their transaction ends.

They are no session state, so the classifier says nothing of them. But the server does not tell
them from session state before the transaction has ended, and so the audit has to know them.
"""

from __future__ import annotations

from collections.abc import Iterator

from .commands import steps_of
from .effects import Effects, Step
from .functions import texts_run
from .procedural import Code, parts
from .statements import OTHER, WORD, Statement, Token, key_words, readings, split

#: Only a text that has one of these in it, in lower case, changes something locally.
_TRIGGERS = ("local", "set_config", "commit", "_xact_lock", 'u&"')

_FALSE, _DROP = Token(WORD, "false"), Token(WORD, "drop")
_ON_COMMIT = [Token(WORD, "on"), Token(WORD, "commit")]


def local_changes(sql: str) -> frozenset[Step]:
    """Return what *sql* changes until the transaction ends, as if it did so for good.

    These are the changes of ``SET LOCAL``, of ``set_config(..., true)``, of a temporary table ``ON
    COMMIT DROP`` and of advisory locks of the transaction. The result may also have lasting changes
    of the same statement.
    """
    lowered = sql.lower()
    if not any(trigger in lowered for trigger in _TRIGGERS):
        return frozenset()
    found: set[Step] = set()
    for way in readings(sql):
        for statement in split(way):
            for part in _parts(statement):
                if (lasting := _lasting(part)) != part:
                    found.update(Effects(tuple(steps_of(lasting))).resolve(None, None))
    return frozenset(found)


def _parts(statement: Statement) -> Iterator[Statement]:
    """Yield *statement*, and those in the code of a DO, and in texts that functions run."""
    yield statement
    codes = [Code(text) for text in texts_run(statement) if text is not None]
    if key_words(statement)[:1] == ["do"]:
        codes.append(Code.of_block(statement))
    for code in codes:
        for inner in code.statements:
            yield from parts(inner)


def _lasting(statement: Statement) -> Statement:
    """Return *statement* with each local change turned into a lasting one."""
    if key_words(statement)[:2] == ["set", "local"]:
        return [statement[0], *statement[2:]]
    found: Statement = []
    #: For each open parenthesis, where the arguments of its set_config() begin; else None.
    arguments: list[list[int] | None] = []
    for token in statement:
        kind, text, _ = token
        if kind is OTHER:
            if text in ("(", "["):
                is_setter = bool(found) and found[-1][:2] == (WORD, "set_config")
                arguments.append([len(found) + 1] if is_setter else None)
            elif text == "," and arguments and (begins := arguments[-1]) is not None:
                begins.append(len(found) + 1)
            elif text in (")", "]") and arguments:
                begins = arguments.pop()
                if begins is not None and len(begins) == 3:
                    found[begins[2] :] = [_FALSE]
        elif kind is WORD and "_xact_lock" in text:
            token = Token(WORD, text.replace("_xact_lock", "_lock"))
        elif token == _DROP and found[-2:] == _ON_COMMIT:
            del found[-2:]
            continue
        found.append(token)
    return found
