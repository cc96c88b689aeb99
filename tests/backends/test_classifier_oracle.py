"""The classifier against the server: generated SQL, and what it really leaves in a session.

Each script, of one to three texts, runs in a session that is as it was configured. Then
the session's fingerprint is taken.

- What has changed must be among the changes that `classify` has told of the texts, by
  its kind. (That it is UNKNOWN is no excuse.) What is missing is a false negative, and a
  failure.
- What has changed must be what `SessionLedger` says is left and keeps the lease, by its
  kind: so nothing is taken for given back, or rolled back, that was not. Here UNKNOWN is
  an answer, too.
- What `classify` has told of and is not there is a false positive. It costs a connection
  that is kept too long; they are counted by category, and printed at the end.

RELET_ORACLE: how many statements (2000; 200000 at night); those of texts that fail run,
and are judged, but do not count.
RELET_ORACLE_SEED: of what random numbers (0); another seed, other statements.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from relet.core import Kind, TransactionStatus
from relet.core.session.baseline import Baseline
from relet.core.session.ledger import SessionLedger
from relet.core.sql.classifier import classify
from relet.core.sql.effects import Change, Control, Move

from ..support.driver import Observer
from ..support.fingerprint import AS_RESET, PARTS, Fingerprint, difference, fingerprint
from . import generated_sql
from .generated_sql import Text, Writer

psycopg = pytest.importorskip("psycopg", reason="the oracle asks through psycopg 3")

STATEMENTS = int(os.environ.get("RELET_ORACLE", "2000"))
SEED = int(os.environ.get("RELET_ORACLE_SEED", "0"))

KINDS = {**PARTS, "sequence": Kind.SEQUENCE, "seed": Kind.SEED}
_CUSTOM = [*generated_sql.CUSTOM, "relet_oracle.base"]
#: What no view shows. (What random() returns first, after a seed of 0.5, is known.)
_MORE = f"""
SELECT 'sequence', {generated_sql.SCHEMA}.current()
UNION ALL
SELECT 'seed', CASE pg_catalog.random() WHEN {{}} THEN 'known' ELSE '' END
"""

#: What a text may be about that no fingerprint shows.
_INVISIBLE = {Kind.LIBRARY, Kind.UNKNOWN}

_ROLLBACKS = {Control.ROLLBACK, Control.ROLLBACK_TO}

IDLE = TransactionStatus.IDLE


class Oracle:
    """A session, and what scripts have done to it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        connection.execute("SELECT setseed(0.5)")
        ((known,),) = connection.execute("SELECT random()").fetchall()
        self._more = _MORE.format(repr(known))
        self.baseline = Baseline(generated_sql.BASELINE, "none", "", frozenset())
        self.clean()
        self.untouched = self.look()
        self.statements = 0
        self.changed: Counter[Kind] = Counter()
        self.right: Counter[str] = Counter()
        self.wrong: dict[str, list[str]] = {}

    def clean(self) -> None:
        self.connection.execute("DISCARD ALL")
        settings = (f"SET {name} = '{value}'" for name, value in generated_sql.BASELINE.items())
        self.connection.execute("; ".join(settings))

    def look(self) -> Fingerprint:
        return fingerprint(self.connection, _CUSTOM, self._more)

    def judge(self, script: list[Text]) -> str:
        """Run a script; return what is wrong with what is said of it, or ""."""
        state = SessionLedger()
        told: set[Kind] = set()
        kept: set[Kind] = set()
        undone = False
        for text in script:
            effects = classify(text.sql)
            before, row, error = self._run(text)
            undone = undone or error
            self.statements += 0 if error else text.statements
            if effects is None:
                continue
            steps = effects.resolve(text.params, row)
            told.update(step.kind for step in steps if isinstance(step, Change))
            kept.update(step.kind for step in steps if isinstance(step, Change) and not step.undoes)
            undone = undone or not _ROLLBACKS.isdisjoint(
                step.control for step in steps if isinstance(step, Move)
            )
            after = self.connection.info.transaction_status
            state.record(
                steps,
                before=before,
                after=after,
                ok=not error,
                single=effects.single,
                keep=lambda kind: True,
                baseline=self.baseline,
            )
        if self.connection.info.transaction_status != IDLE:
            self.connection.rollback()
            state.end_transaction(committed=False)
            undone = True
        after = self.look()
        changed = {KINDS[part] for part, _ in after ^ self.untouched}
        self._count(script, changed, kept, undone)
        # RESET, and then SET LOCAL ... TO DEFAULT, leave a trace, of something that is clean.
        dirty = {KINDS[part] for part, what in after ^ self.untouched if not _is_reset(what)}
        found = ""
        if missing := changed - told:
            found = f"classify() does not tell of {_names(missing)}"
        elif Kind.UNKNOWN not in state.left and (missing := dirty - state.left):
            found = f"SessionLedger has nothing left of {_names(missing)}"
        elif Kind.UNKNOWN not in state.kinds_kept and (missing := dirty - state.kinds_kept):
            found = f"SessionLedger does not keep the lease for {_names(missing)}"
        if changed:
            found = found and f"{found}\n{difference(self.untouched, after)}"
            self.clean()
        return found

    def _run(self, text: Text) -> tuple[int, list[bool] | None, bool]:
        """Return the transaction status before, the only row, and whether it failed."""
        before = self.connection.info.transaction_status
        cursor = self.connection.cursor()
        try:
            if text.params is None:
                cursor.execute(text.sql)
            else:
                cursor.execute(text.sql, text.params)
        except psycopg.Error:
            return before, None, True
        result = cursor.pgresult
        if result is None or result.ntuples != 1:
            return before, None, False
        return before, [result.get_value(0, n) == b"t" for n in range(result.nfields)], False

    def _count(self, script: list[Text], changed: set[Kind], kept: set[Kind], undone: bool) -> None:
        self.changed.update(changed)
        if len(script) > 1 or undone:
            return
        (text,) = script
        category = text.category or "several statements"
        if wrong := kept - changed - _INVISIBLE:
            self.wrong.setdefault(f"{category}: {_names(wrong)}", []).append(_shown(text))
        else:
            self.right[category] += 1

    def report(self) -> str:
        wrong = sum(map(len, self.wrong.values()))
        kinds = ", ".join(f"{count} {kind.value}" for kind, count in self.changed.most_common())
        lines = [
            f"{self.statements} statements; the server changed {kinds}.",
            (
                f"{wrong} false positives, to {self.right.total()} texts that were judged rightly"
                " (of those that ran alone, and well):"
            ),
        ]
        for category, texts in sorted(self.wrong.items(), key=lambda item: -len(item[1])):
            lines.append(f"{len(texts):6} {category}, as {min(texts, key=len)}")
        return "\n".join(lines)

    def smallest(self, script: list[Text]) -> list[Text]:
        """Of a script that is judged wrongly, the texts that are needed for that."""
        for position in range(len(script)):
            shorter = script[:position] + script[position + 1 :]
            if shorter and self.judge(shorter):
                return self.smallest(shorter)
        return script


def _is_reset(what: str) -> bool:
    return what.endswith(AS_RESET)


def _names(kinds: set[Kind]) -> str:
    return ", ".join(sorted(kind.name for kind in kinds))


def _shown(text: Text) -> str:
    return repr(text.sql) if text.params is None else f"{text.sql!r} with {text.params!r}"


@pytest.fixture
def oracle(observer: Observer) -> Iterator[Oracle]:
    observer.execute(generated_sql.SETUP)
    try:
        with psycopg.connect(
            observer.raw.info.dsn,
            password=observer.raw.info.password,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
        ) as connection:
            connection.add_notify_handler(lambda notify: None)
            yield Oracle(connection)
    finally:
        observer.execute(generated_sql.TEARDOWN)


def test_generated_sql(oracle: Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Writer(Random(SEED), oracle.connection.info.dbname)
    failures = []
    while oracle.statements < STATEMENTS and len(failures) < 10:
        script = writer.script()
        if oracle.judge(script):
            script = oracle.smallest(script)
            texts = "\n".join(map(_shown, script))
            failures.append(f"{oracle.judge(script)}\n{texts}")
    with capsys.disabled():
        print(f"\n{oracle.report()}")
    assert not failures, "\n\n".join([f"RELET_ORACLE_SEED={SEED}", *failures])
    assert oracle.statements >= STATEMENTS
    # Else the generator has nothing to show.
    assert all(oracle.changed[kind] >= STATEMENTS / 200 for kind in KINDS.values())


def test_the_oracle_sees_what_is_missed(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.classify", lambda sql: None)
    for kind, sql in {
        Kind.SETTING: "SET a.b = 1",
        Kind.ROLE: f"SET ROLE {generated_sql.ROLE}",
        Kind.TEMPORARY: "CREATE TEMP TABLE x (a int)",
        Kind.CHANNEL: "LISTEN c",
        Kind.LOCK: "SELECT pg_advisory_lock(1)",
        Kind.PREPARED: "PREPARE p AS SELECT 1",
        Kind.CURSOR: "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        Kind.SEQUENCE: f"SELECT nextval('{generated_sql.SCHEMA}.s')",
    }.items():
        found = oracle.judge([Text(sql, None, 1, "")])
        assert found.startswith(f"classify() does not tell of {kind.name}\n"), kind
    assert oracle.judge([Text("SET LOCAL a.b = 1", None, 1, "")]) == ""
