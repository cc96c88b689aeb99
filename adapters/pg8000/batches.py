"""Batches: a statement with many sets of parameters, in as few messages as possible.

A message of several statements is one round trip and, outside of a transaction, a transaction.

https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any

from relet.core import TransactionStatus
from relet.core.locks import locked

from .errors import DatabaseError, Error, from_fields, whole_number
from .loaders import Loaders
from .results import Result
from .session import Session
from .templates import is_closed

IDLE = TransactionStatus.IDLE
#: Separates statements. The line break ends a comment at the end of a statement.
_SEPARATOR = "\n;\n"
#: The maximal length, in characters, of a message with several statements. The server keeps the
#: whole message, and its parse trees, until the last statement is done.
_MAX_LENGTH = 1 << 20

#: The text of each message, by the range of its statements.
Messages = Mapping[range, str]


class Batch:
    """One statement with many sets of parameters.

    :param sql: the statement, with placeholders.
    :param statements: the statement with each set of parameters filled in.
    """

    def __init__(self, sql: str, statements: list[str]) -> None:
        self._statements = statements
        # An open string or comment would swallow the beginning of the next statement.
        self._joined = len(statements) > 1 and is_closed(sql)
        self._single = ";" not in sql.rstrip("; \t\r\n")

    def send(self, session: Session, loaders: Loaders | None) -> list[Result]:
        """Send all statements; return their results. Outside of a transaction, all succeed or none.

        :raises DatabaseError: from the server; it names the set of parameters that failed.
        """
        messages = {
            part: _SEPARATOR.join(self._statements[part.start : part.stop])
            for part in self._ranges()
        }
        if len(messages) > 1:
            # Check that all can be encoded before anything is sent.
            for message in messages.values():
                session.wire.check(message)
        return locked(session.lock, lambda: self._send_all(session, loaders, messages))

    def _send_all(
        self, session: Session, loaders: Loaders | None, messages: Messages
    ) -> list[Result]:
        session.begin()
        if len(messages) == 1 or session.wire.transaction_status != IDLE:
            return self._send(session, loaders, messages)
        try:
            session.wire.exchange("BEGIN")
            results = self._send(session, loaders, messages)
            session.commit()
        except BaseException:
            with suppress(Error):
                session.rollback()
            raise
        return results

    def _send(self, session: Session, loaders: Loaders | None, messages: Messages) -> list[Result]:
        results: list[Result] = []
        for part, message in messages.items():
            try:
                results += session.wire.exchange(message, loaders)
            except DatabaseError as error:
                # An error that ends the connection belongs to no statement.
                if session.wire.closed or (located := self._locate(error, part)) is None:
                    raise
                raise located from None
        return results

    def _ranges(self) -> Iterator[range]:
        """Yield the range of the statements of each message."""
        first, length = 0, 0
        for at, statement in enumerate(self._statements):
            length += len(statement) + len(_SEPARATOR)
            if at > first and (not self._joined or length > _MAX_LENGTH):
                yield range(first, at)
                first, length = at, len(statement) + len(_SEPARATOR)
        yield range(first, len(self._statements))

    def _locate(self, error: Any, part: range) -> DatabaseError | None:
        """Return *error* with its position in the statement that failed; None if it is unknown."""
        fields = dict(error.diag.fields) if hasattr(error, "diag") else {}
        place = whole_number(fields.get("P", ""))
        if place is not None:
            lengths = (len(self._statements[at]) + len(_SEPARATOR) for at in part)
            starts = list(accumulate(lengths, initial=0))
            within = max(at for at in range(len(part)) if at == 0 or starts[at] < place)
            fields["P"] = str(place - starts[within])
        elif fields and self._single:
            # An error at the commit counts as one of the last statement.
            within = min(error.completed, len(part) - 1)
        else:
            return None
        index = part[within]
        located: Any = from_fields(fields, self._statements[index])
        located.args = (
            f"{located}\nPARAMETERS:  set {index + 1} of {len(self._statements)}",
            *located.args[1:],
        )
        located.executemany_index = index
        return located
