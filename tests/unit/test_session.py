"""SessionLedger: what is left, what keeps the lease, and what a transaction takes back."""

import pytest

from relet.core import Kind, Lease, TransactionStatus
from relet.core.lease import Hold
from relet.core.session.baseline import Baseline
from relet.core.session.ledger import SessionLedger
from relet.core.sql.classifier import classify

IDLE, IN_TRANSACTION = TransactionStatus.IDLE, TransactionStatus.IN_TRANSACTION
IN_ERROR = TransactionStatus.IN_ERROR

BASELINE = Baseline({"TimeZone": "UTC"}, "none", "app", frozenset())


class Session:
    """A SessionLedger, told of statements as the Django layer does."""

    def __init__(self, baseline=BASELINE, keep=True):
        self.state, self.status = SessionLedger(), IDLE
        self.baseline, self.keep = baseline, keep

    def run(self, sql, *, after=None, ok=True, row=None):
        effects = classify(sql)
        after = self.status if after is None else after
        if effects is not None:
            self.state.record(
                effects.resolve(None, row),
                before=self.status,
                after=after,
                ok=ok,
                single=effects.single,
                keep=lambda kind: self.keep,
                baseline=self.baseline,
            )
        self.status = after
        return self

    def begin(self):
        self.status = IN_TRANSACTION
        return self

    @property
    def seen(self):
        return self.state.keeps_lease, {kind.name for kind in self.state.left}


MADE = {
    "SET statement_timeout = 5": "SETTING",
    "SELECT set_config('app.tenant', '1', false)": "SETTING",
    "RESET TimeZone": "SETTING",
    "SET ROLE other": "ROLE",
    "SET SESSION AUTHORIZATION other": "ROLE",
    "CREATE TEMP TABLE t (a int)": "TEMPORARY",
    "LISTEN news": "CHANNEL",
    "SELECT pg_advisory_lock(1)": "LOCK",
    "PREPARE p AS SELECT 1": "PREPARED",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1": "CURSOR",
    "SELECT nextval('s')": "SEQUENCE",
    "SELECT setseed(0.5)": "SEED",
    "SET LOCAL seed = 0.5": "SEED",
    "LOAD 'auto_explain'": "LIBRARY",
}
statements = pytest.mark.parametrize(("sql", "kind"), MADE.items())


@statements
def test_made_outside_of_a_transaction(sql, kind):
    assert Session().run(sql).seen == (True, {kind})


@statements
def test_what_does_not_keep_is_left_all_the_same(sql, kind):
    assert Session(keep=False).run(sql).seen == (False, {kind})


@statements
def test_rollback_takes_back_what_is_transactional(sql, kind):
    session = Session().begin().run(sql, after=IN_TRANSACTION).run("ROLLBACK", after=IDLE)
    assert session.seen == ((False, set()) if Kind[kind].transactional else (True, {kind}))
    assert session.state.is_empty == Kind[kind].transactional


@statements
def test_commit_does_not(sql, kind):
    assert Session().begin().run(sql).run("COMMIT", after=IDLE).seen == (True, {kind})


@statements
def test_commit_of_what_has_failed_is_a_rollback(sql, kind):
    session = Session().begin().run(sql).run("RESET nonsense", after=IN_ERROR, ok=False)
    session.run("COMMIT", after=IDLE)
    assert session.state.keeps_lease != Kind[kind].transactional


@statements
def test_a_statement_that_fails(sql, kind):
    session = Session().run(sql, ok=False)
    assert session.state.keeps_lease != Kind[kind].transactional


def test_django_ends_the_transaction():
    session = Session().begin().run("SET a.b = 1")
    session.state.end_transaction(committed=False)
    assert session.state.is_empty
    session = Session().begin().run("SET a.b = 1")
    session.state.end_transaction(committed=True)
    assert session.seen == (True, {"SETTING"})


def test_a_commit_that_fails_rolls_back():
    session = Session().begin().run("SET a.b = 1").run("COMMIT", after=IDLE, ok=False)
    assert session.state.is_empty


_BACK_TO_A_AND_B = ("ROLLBACK TO a", "ROLLBACK TO b")


@pytest.mark.parametrize(
    ("statements", "keeps"),
    [
        (["SAVEPOINT a", "SET x.y = 1", "ROLLBACK TO a"], False),
        (["SAVEPOINT a", "SET x.y = 1", "RELEASE a"], True),
        (["SET x.y = 1", "SAVEPOINT a", "ROLLBACK TO a"], True),
        (["SET x.y = 1", "SAVEPOINT a", "SET x.z = 1", "ROLLBACK TO SAVEPOINT a"], True),
        # One that was made before there was anything to keep account of.
        (["SET x.y = 1", "ROLLBACK TO older"], False),
        (["SET x.y = 1", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO older"], False),
        # The newest of a name, and when that is released, the one before.
        (["SAVEPOINT a", "SET x.y = 1", "SAVEPOINT a", "ROLLBACK TO a"], True),
        (["SAVEPOINT a", "SET x.y = 1", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a"], False),
        # ROLLBACK TO leaves its savepoint where it is.
        (["SAVEPOINT a", "SET x.y = 1", "ROLLBACK TO a", "SET x.z = 1", "ROLLBACK TO a"], False),
        (
            # The first of its name, for the other is gone.
            [*("SAVEPOINT b", "SET x.y = 1", "SAVEPOINT a", "SAVEPOINT b"), *_BACK_TO_A_AND_B],
            False,
        ),
        # Inner ones go with the outer.
        (["SAVEPOINT a", "SET x.y = 1", "SAVEPOINT b", "ROLLBACK TO a"], False),
        (["SAVEPOINT a", "SAVEPOINT b", "SET x.y = 1", "RELEASE a"], True),
        (["SAVEPOINT a; SET x.y = 1; ROLLBACK TO a"], False),
        (["SELECT pg_advisory_lock(1)", "ROLLBACK TO older"], True),
        (["SAVEPOINT a", "SELECT pg_advisory_lock(1)", "ROLLBACK TO a"], True),
    ],
)
def test_savepoints(statements, keeps):
    session = Session().begin()
    for sql in statements:
        session.run(sql)
    session.run("COMMIT", after=IDLE)
    assert session.state.keeps_lease == keeps


@pytest.mark.parametrize(
    ("sql", "keeps"),
    [
        ("BEGIN; SET a.b = 1; COMMIT", True),
        ("BEGIN; SET a.b = 1; ROLLBACK", False),
        ("SET a.b = 1; BEGIN; SET a.c = 1; ROLLBACK", False),
        ("SET a.b = 1; COMMIT; SET a.c = 1; ROLLBACK", True),
        ("SET a.b = 1; ROLLBACK; SELECT 1", False),
        ("SET a.b = 1; RESET a.b", False),
        ("RESET a.b; SET a.b = 1", True),
    ],
)
def test_texts_of_several_statements(sql, keeps):
    assert Session().run(sql).state.keeps_lease == keeps


def test_of_a_text_that_fails_in_the_middle_nobody_knows():
    session = Session().run("BEGIN; SET a.b = 1; COMMIT; SELECT 1/0", ok=False)
    assert session.seen == (True, {"UNKNOWN"})
    # Its savepoint may be there or not.
    session = Session().begin().run("SET a.b = 1")
    session.run("SAVEPOINT a; SELECT 1/0; SAVEPOINT b", after=IN_ERROR, ok=False)
    session.run("ROLLBACK TO a", after=IN_TRANSACTION).run("COMMIT", after=IDLE)
    assert session.state.keeps_lease
    session = Session().begin().run("LISTEN a").run("COMMIT; SELECT 1/0", after=IDLE, ok=False)
    assert session.seen == (True, {"UNKNOWN"})
    # Nothing was made, so nothing can be left.
    assert Session().run("SELECT 1; COMMIT; SELECT 1/0", ok=False).state.is_empty


@statements
def test_what_is_interrupted_may_have_been_done(sql, kind):
    session = Session().run(sql, ok=None)
    assert session.state.keeps_lease and Kind[kind] in session.state.left


def test_what_is_interrupted_may_not_have_been_done():
    session = Session().run("SET a.b = 1").run("RESET a.b", ok=None)
    assert session.seen == (True, {"SETTING", "UNKNOWN"})
    session = Session().begin().run("SET a.b = 1").run("ROLLBACK", after=IDLE, ok=None)
    assert session.seen == (True, {"UNKNOWN"})
    session = Session().begin().run("SET a.b = 1")
    session.state.end_transaction(committed=None)
    assert session.seen == (True, {"SETTING", "UNKNOWN"})


def test_a_transaction_that_ended_unseen():
    """By the driver's own commit(), or in a procedure."""
    session = Session().begin().run("SET a.b = 1")
    session.status = IDLE
    assert session.run("SET a.c = 1; SELECT 1/0", ok=False).state.keeps_lease


def test_an_implicit_transaction_that_fails_leaves_nothing():
    assert Session().run("SET a.b = 1; SELECT 1/0", ok=False).state.is_empty


@pytest.mark.parametrize(
    ("statements", "keeps"),
    [
        (["SET a.b = 1", "RESET a.b"], False),
        (["SET a.b = 1", "SET a.b TO DEFAULT"], False),
        (["SET a.b = 1", "SET A.B = DEFAULT"], False),
        (["SET a.b = 1", "SET a.c = 1", "RESET a.b"], True),
        (["SET TIME ZONE 'Asia/Tokyo'", "SET TIME ZONE DEFAULT"], True),  # not the baseline's
        (["SET a.b = 1", "RESET ALL"], True),  # the baseline's time zone is gone
        (["SET ROLE other", "RESET ROLE"], False),
        (["SET ROLE other", "SET ROLE NONE"], False),
        (["CREATE TEMP TABLE t (a int)", "DROP TABLE t"], False),
        (["CREATE TEMP TABLE t (a int)", "DROP TABLE IF EXISTS x, pg_temp.t"], False),
        (["CREATE TEMP TABLE t (a int)", "DROP TABLE public.t"], True),
        (["CREATE TEMP TABLE t (a int)", "DISCARD TEMP"], False),
        (["LISTEN a", "LISTEN b", "UNLISTEN a"], True),
        (["LISTEN a", "LISTEN a", "UNLISTEN a"], False),
        (["LISTEN a", "LISTEN b", "UNLISTEN *"], False),
        (["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"], False),
        (["SELECT pg_advisory_lock(1)"] * 2 + ["SELECT pg_advisory_unlock(1)"], True),
        (["SELECT pg_advisory_lock(1)"] * 2 + ["SELECT pg_advisory_unlock(1)"] * 2, False),
        (["SELECT pg_advisory_lock(1)"] * 2 + ["SELECT pg_advisory_unlock_all()"], False),
        (["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(2)"], True),
        (["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock_shared(1)"], True),
        (["SELECT pg_advisory_lock(1, 2)", "SELECT pg_advisory_unlock(1, 2)"], False),
        (["SELECT pg_advisory_lock(n) FROM t", "SELECT pg_advisory_unlock(n) FROM t"], True),
        (["SELECT pg_advisory_lock(n) FROM t", "SELECT pg_advisory_unlock_all()"], False),
        (["PREPARE p AS SELECT 1", "DEALLOCATE p"], False),
        (["PREPARE p AS SELECT 1", "PREPARE q AS SELECT 1", "DEALLOCATE PREPARE p"], True),
        (["PREPARE p AS SELECT 1", "DEALLOCATE ALL"], False),
        # What a temporary table is called, nobody knows after this; so another is dropped.
        (["CREATE TEMP TABLE t (a int)", "ALTER TABLE t RENAME TO u", "DROP TABLE t"], True),
        (["CREATE TEMP TABLE t (a int)", "ALTER TABLE t SET SCHEMA s", "DROP TABLE t"], True),
        (["CREATE TEMP TABLE t (a int)", "ALTER VIEW x RENAME TO y", "DROP TABLE t"], True),
        (["CREATE TEMP TABLE t (a int)", "ALTER TABLE t RENAME a TO b", "DROP TABLE t"], False),
        (["ALTER TABLE t RENAME TO u", "CREATE TEMP TABLE t (a int)", "DROP TABLE t"], False),
        (["CREATE TEMP TABLE t (a int)", "ALTER TABLE t RENAME TO u", "DISCARD TEMP"], False),
        (["CREATE TEMP TABLE t (a int)", "ALTER TABLE t RENAME TO u", "LISTEN c"], True),
        (["SET a.b = 1", "SELECT set_config('a.b', NULL, false)"], False),
        (["SET a.b = 1", "SELECT set_config('a.b', NULL, false) FROM t"], True),
        (["SET a.b = 1", "SELECT set_config('a.b', NULL, true)"], True),
        (["SET a.b = 1", "SELECT set_config('a.c', NULL, false)"], True),
        (["SELECT setseed(0.5)", "DISCARD ALL", "SET TIME ZONE 'UTC'"], True),
        (["SELECT pg_advisory_lock(1)", "EXPLAIN ANALYZE SELECT pg_advisory_unlock(1)"], True),
        (["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"], False),
        (["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE ALL"], False),
        (["SELECT nextval('s')", "DISCARD SEQUENCES"], False),
        (["LISTEN a", "SELECT pg_advisory_lock(1)", "PREPARE p AS SELECT 1", "DISCARD ALL"], True),
    ],
)
def test_giving_back(statements, keeps):
    session = Session()
    for sql in statements:
        session.run(sql)
    assert session.state.keeps_lease == keeps
    # It was there, and is undone once more: it may have been given back only in part.
    assert session.state.left


def test_giving_back_what_was_never_made_is_nothing():
    session = Session()
    for sql in ("DROP TABLE t", "UNLISTEN *", "CLOSE c", "DEALLOCATE p", "RESET a.b", "RESET ROLE"):
        session.run(sql)
    assert session.state.is_empty


def test_giving_back_what_was_configured_is_session_state():
    baseline = Baseline({"app.tenant": "1"}, "reader", "app", frozenset({Kind.CHANNEL}))
    for sql, kind in {
        "RESET app.tenant": "SETTING",
        "RESET ALL": "SETTING",
        "SET ROLE NONE": "ROLE",
        "UNLISTEN *": "CHANNEL",
    }.items():
        assert Session(baseline).run(sql).seen == (True, {kind})


def test_what_may_have_been_given_back_is_missing_where_it_was_configured():
    baseline = Baseline({"app.tenant": "1"}, "none", "app", frozenset())
    for sql in (
        "SELECT set_config('app.tenant', NULL, false) FROM t",
        "EXPLAIN ANALYZE SELECT set_config('app.tenant', NULL, false)",
        "DO $$ BEGIN RESET app.tenant; END $$",
        "DO $$ BEGIN EXECUTE 'RESET ALL'; END $$",
    ):
        assert Session(baseline).run(sql).seen == (True, {"SETTING"})
        # Nothing was configured.
        assert Session(Baseline({}, "none", "app", frozenset())).run(sql).state.is_empty


def test_a_rename_is_rolled_back():
    session = Session().run("CREATE TEMP TABLE t (a int)").begin()
    session.run("SAVEPOINT a").run("ALTER TABLE t RENAME TO u").run("ROLLBACK TO a")
    assert not session.run("DROP TABLE t").run("COMMIT", after=IDLE).state.keeps_lease
    session = Session().run("CREATE TEMP TABLE t (a int)").begin()
    session.run("ALTER TABLE t RENAME TO u").run("ROLLBACK", after=IDLE)
    assert not session.run("DROP TABLE t").state.keeps_lease


def test_a_rename_of_nothing_is_nothing():
    assert Session().begin().run("ALTER TABLE t RENAME TO u").state.is_empty


@pytest.mark.parametrize(
    ("row", "keeps"), [([True], True), ([False], False), (None, True)], ids=str
)
def test_a_lock_that_may_fail(row, keeps):
    session = Session().run("SELECT pg_try_advisory_lock(1)", row=row)
    assert session.state.keeps_lease == keeps
    assert session.state.is_empty != keeps


def test_an_unlock_that_fails():
    session = Session().run("SELECT pg_advisory_lock(1)")
    assert session.run("SELECT pg_advisory_unlock(1)", row=[False]).state.keeps_lease


def test_a_block_that_holds_keeps_whatever_is_left():
    session = Session()
    session.state.holds = 1
    assert session.seen == (True, {"UNKNOWN"})
    assert not session.state.is_empty
    successor = session.state.successor()
    assert successor is not None and successor.holds == 1
    assert SessionLedger().successor() is None


def test_what_a_lease_makes_of_it():
    lease = Lease("default")
    lease.session = Session().run("SET a.b = 1").state
    assert lease.condition(IDLE, False).name == "PINNED"
    # Whoever has set the session up must not go on in another.
    assert lease.condition(TransactionStatus.UNKNOWN, False).name == "LOST_IN_USE"
    assert lease.condition(TransactionStatus.ACTIVE, False).name == "LOST_IN_USE"
    lease.session = Session(keep=False).run("SET a.b = 1").state
    assert lease.condition(IDLE, False).name == "DIRTY"
    assert lease.condition(IDLE, True).name == "TRANSACTION"
    assert lease.condition(TransactionStatus.UNKNOWN, False).name == "LOST"
    lease.pins["cursor"] = None
    assert lease._hold(False) is Hold.PIN
    lease.clean()
    assert lease.session is None


class TestUndo:
    def test_everything_is_undone(self):
        sql = BASELINE.undo(frozenset({Kind.SETTING}))
        assert sql is not None
        for part in (
            "SET SESSION AUTHORIZATION DEFAULT",
            "RESET ALL",
            "SELECT pg_catalog.set_config(E'TimeZone', E'UTC', false)",
            "SET ROLE NONE",
            "CLOSE ALL",
            "UNLISTEN *",
            "SELECT pg_catalog.pg_advisory_unlock_all()",
            "DISCARD TEMP",
            "DISCARD SEQUENCES",
        ):
            assert part in sql.split("; ")
        assert "pg_catalog.setseed(" in sql

    def test_prepared_statements_only_where_there_may_be_some(self):
        for kind in Kind:
            if kind not in (Kind.LIBRARY, Kind.EXTENSION):
                sql = BASELINE.undo(frozenset({kind}))
                assert sql is not None
                known = kind not in (Kind.PREPARED, Kind.DYNAMIC, Kind.UNKNOWN)
                assert ("DEALLOCATE" not in sql) == known

    @pytest.mark.parametrize("kind", [Kind.LIBRARY, Kind.EXTENSION])
    def test_a_library_cannot_be_unloaded(self, kind):
        assert BASELINE.undo(frozenset({Kind.SETTING, kind})) is None

    def test_what_was_there_from_the_beginning_is_left_alone(self):
        baseline = Baseline({}, "reader", "app", frozenset({Kind.TEMPORARY}))
        sql = baseline.undo(frozenset({Kind.SETTING}))
        assert sql is not None
        assert "DISCARD TEMP" not in sql
        assert "SET ROLE E'reader'" in sql
        # Which of them is new, nobody knows.
        assert baseline.undo(frozenset({Kind.TEMPORARY})) is None
        assert baseline.undo(frozenset({Kind.UNKNOWN})) is None

    def test_values_are_quoted(self):
        sql = Baseline({"a.b": "it's \\ '"}, "none", "o'x", frozenset()).undo(frozenset())
        assert sql is not None
        assert r"E'it''s \\ '''" in sql
        assert "SET SESSION AUTHORIZATION E'o''x'" in sql

    def test_rows_of_the_query(self):
        rows = [
            ("role", None, "reader"),
            ("user", None, "app"),
            ("setting", "TimeZone", "UTC"),
            ("kind", "CHANNEL", None),
        ]
        assert Baseline.from_rows(rows) == Baseline(
            {"TimeZone": "UTC"}, "reader", "app", frozenset({Kind.CHANNEL})
        )
