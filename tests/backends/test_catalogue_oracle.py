"""The catalogue against the server: generated schemas, and what their use really leaves.

Each statement runs in a session that is as it was configured. Then the session's fingerprint is
taken. What has changed must be among the changes that `classify` has told of the statement, given
the schema's catalogue; what is missing is a false negative, and a failure. What it has told of and
is not there is a false positive; they are counted by what the statement does, and printed.

RELET_CATALOGUE_ORACLE: how many statements (600; 20000 at night).
RELET_ORACLE_SEED: of what random numbers (0); another seed, other schemas.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from relet.backends.leases.definitions import PoolDefinitions
from relet.core import Kind, ReleasePolicy
from relet.core.catalogue import closure
from relet.core.sql.effects import Change

from ..support.driver import Observer
from ..support.fingerprint import AS_RESET, PARTS, Fingerprint, difference, fingerprint
from .generated_schemas import OTHER, SCHEMA, Schema

psycopg = pytest.importorskip("psycopg", reason="the oracle asks through psycopg 3")

STATEMENTS = int(os.environ.get("RELET_CATALOGUE_ORACLE", "600"))
SEED = int(os.environ.get("RELET_ORACLE_SEED", "0"))

ROLE = "relet_generated_role"
TOOLS = "relet_generated_tools"
KINDS = {**PARTS, "sequence": Kind.SEQUENCE, "seed": Kind.SEED}
CUSTOM = [f"relet_generated.{letter}" for letter in "abc"]
SETUP = f"""
DROP SCHEMA IF EXISTS {TOOLS} CASCADE;
CREATE SCHEMA {TOOLS};
CREATE FUNCTION {TOOLS}.current_number() RETURNS text LANGUAGE plpgsql AS $$
BEGIN RETURN currval('{SCHEMA}.numbers');
EXCEPTION WHEN object_not_in_prerequisite_state OR undefined_table OR invalid_schema_name THEN
  RETURN ''; END $$;
DROP ROLE IF EXISTS {ROLE};
CREATE ROLE {ROLE};
GRANT USAGE ON SCHEMA {TOOLS} TO {ROLE};
"""
#: What no view shows. (What random() returns first, after a seed of 0.5, is known.)
MORE = f"""
SELECT 'sequence', {TOOLS}.current_number()
UNION ALL
SELECT 'seed', CASE pg_catalog.random() WHEN {{}} THEN 'known' ELSE '' END
"""
DROP = f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; DROP SCHEMA IF EXISTS {OTHER} CASCADE"
#: What the effects may stand for, because the text that runs is not known.
ANYTHING = {Kind.DYNAMIC}


class Oracle:
    """A session that uses generated schemas."""

    def __init__(self, connection: Any, pool: Any) -> None:
        self.connection, self.pool = connection, pool
        connection.execute("SELECT setseed(0.5)")
        ((known,),) = connection.execute("SELECT random()").fetchall()
        self._more = MORE.format(repr(known))
        self.statements = self.failed = self.right = 0
        self.changed: Counter[Kind] = Counter()
        self.wrong: dict[str, list[str]] = {}
        self.by_dynamic = 0

    def use(self, schema: Schema) -> list[str]:
        """Make *schema* and use it; return what is wrong with what is told of its statements."""
        connection = self.connection
        self.clean()
        connection.execute(DROP)
        try:
            connection.execute(schema.sql)
        except psycopg.Error:
            self.failed += 1
            self.clean()
            return []
        self.clean()
        definitions = PoolDefinitions(ReleasePolicy(), pooled=True)
        definitions.compare(self.pool, connection)
        self.clean()
        untouched = self.look()
        failures = []
        for statement in schema.statements:
            effects = definitions.memo.judge(statement)
            steps = () if effects is None else effects.resolve(None, None)
            told = {step.kind for step in steps if isinstance(step, Change)}
            try:
                connection.execute(statement)
            except psycopg.Error:
                self.clean()
                continue
            self.statements += 1
            after = self.look()
            changed = {KINDS[part] for part, what in after ^ untouched if AS_RESET not in what}
            self.changed.update(changed)
            missing = changed - told
            if missing and not told & ANYTHING:
                names = ", ".join(sorted(kind.name for kind in missing))
                failures.append(
                    f"not told of {names} by {statement!r}\n{difference(untouched, after)}\n"
                    f"{schema.sql}"
                )
            elif missing:
                self.by_dynamic += 1
            elif wrong := told - changed - {Kind.UNKNOWN}:
                names = ", ".join(sorted(kind.name for kind in wrong))
                origins = {step.origin for step in steps if isinstance(step, Change)}
                self.wrong.setdefault(f"{statement.split()[0]}: {names}", []).append(
                    f"{statement} ({', '.join(sorted(origins))})"
                )
            else:
                self.right += 1
            if after != untouched:
                self.clean()
        return failures

    def clean(self) -> None:
        self.connection.execute("DISCARD ALL")
        self.connection.execute("SELECT random()")  # the first one after a known seed
        self.connection.execute(f"SET search_path = {SCHEMA}, public")

    def look(self) -> Fingerprint:
        return fingerprint(self.connection, CUSTOM, self._more)

    def report(self) -> str:
        kinds = ", ".join(f"{count} {kind.value}" for kind, count in self.changed.most_common())
        wrong = sum(map(len, self.wrong.values()))
        lines = [
            f"{self.statements} statements; the server changed {kinds}.",
            f"{self.failed} schemas could not be made.",
            f"{self.by_dynamic} statements were told of as dynamic SQL only.",
            f"{wrong} false positives, to {self.right} statements that were judged rightly:",
        ]
        for category, texts in sorted(self.wrong.items(), key=lambda item: -len(item[1])):
            lines.append(f"{len(texts):6} {category}, as {min(texts, key=len)}")
        return "\n".join(lines)


@pytest.fixture
def oracle(observer: Observer) -> Iterator[Oracle]:
    from relet.adapters.drivers.psycopg import Psycopg

    observer.execute(SETUP)
    try:
        with psycopg.connect(
            observer.raw.info.dsn,
            password=observer.raw.info.password,
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
        ) as connection:
            connection.add_notify_handler(lambda notify: None)
            yield Oracle(connection, Psycopg())
    finally:
        observer.execute(f"{DROP}; DROP SCHEMA {TOOLS} CASCADE; DROP OWNED BY {ROLE}")
        observer.execute(f"DROP ROLE {ROLE}")


def test_generated_schemas(
    oracle: Oracle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closure, "NOT_OF_WRITES", set())  # so that sequences can be compared, too
    random = Random(SEED)
    failures: list[str] = []
    while oracle.statements < STATEMENTS and len(failures) < 10:
        failures += oracle.use(Schema(random, ROLE))
    with capsys.disabled():
        print(f"\n{oracle.report()}")
    assert not failures, "\n\n".join([f"RELET_ORACLE_SEED={SEED}", *failures])
    assert oracle.statements >= STATEMENTS
