"""The audit of session state: what is compared, and who is to blame."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from relet.core import Kind
from relet.core.session.audit import Leak, Ran, SessionAudit, is_commit, is_control
from relet.core.session.audit_report import AuditFinding, AuditReport, merged
from relet.core.session.snapshot import Snapshot, names_in
from relet.core.sql.classifier import classify
from relet.core.sql.local import local_changes

ROLE = ("ROLE", "", "me none")
TIMEOUT = ("SETTING", "lock_timeout", "5s")
LOCK = ("LOCK", "", "1 2 3 ExclusiveLock")
TABLE = ("TEMPORARY", "t", "relation 1")
READ_ONLY = ("SETTING", "default_transaction_read_only", "on")


def snapshot(*rows):
    return Snapshot.from_rows([ROLE, *rows])


def leaks(found):
    return [(leak.ran.text, leak.kind, leak.names, leak.sure) for leak in found]


class TestSnapshot:
    def test_changes_are_what_came_and_what_went(self):
        before, after = snapshot(TIMEOUT, TABLE), snapshot(TABLE, LOCK)
        assert {(piece.kind, piece.name) for piece in before.changes(after)} == {
            (Kind.SETTING, "lock_timeout"),
            (Kind.LOCK, ""),
        }
        assert before.changes(before) == frozenset()

    def test_another_value_is_a_change(self):
        changed = snapshot(TIMEOUT).changes(snapshot(("SETTING", "lock_timeout", "6s")))
        assert {piece.name for piece in changed} == {"lock_timeout"}

    def test_some_settings_can_be_left_out(self):
        assert snapshot().changes(snapshot(TIMEOUT), {"lock_timeout"}) == frozenset()
        assert snapshot().changes(snapshot(LOCK), {"lock_timeout"})

    def test_it_keeps_no_value(self):
        secret = Snapshot.from_rows([("SETTING", "app.a", "kuckuck"), ("ROLE", "", "kuckuck")])
        assert "kuckuck" not in repr(secret)

    def test_rows_in_bytes(self):
        rows = [(b"SETTING", b"lock_timeout", b"5s"), (b"FUNCTIONS", b"", b"3 14")]
        found = Snapshot.from_rows(rows)
        assert [(piece.kind, piece.name) for piece in found.pieces] == [
            (Kind.SETTING, "lock_timeout")
        ]
        assert found.functions == "3 14"

    def test_names_are_quoted(self):
        assert "E'app.it''s'" in Snapshot.query(["app.it's"])

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("SELECT set_config('App.Tenant', x, false)", {"app.tenant"}),
            ("EXECUTE 'SELECT set_config(''a.b.c'', x, false)'", {"a.b.c"}),
            ("SET app.x = 1; SET SESSION app.y TO 2", {"app.x", "app.y"}),
            ("UPDATE t SET a = b.c", set()),
            ("SELECT 'a', '1.2', 'a.', '.a', 'a b.c'", set()),
            (f"SELECT 'a.{'b' * 300}'", set()),
        ],
    )
    def test_names_of_settings(self, text, names):
        assert names_in(text) == names


class TestTexts:
    @pytest.mark.parametrize(
        "text",
        [
            *("SET a = 1", " /* c */ set local a to 1;", "BEGIN", "SAVEPOINT s", "LOCK TABLE t"),
            *("ROLLBACK TO SAVEPOINT s", "RELEASE s; SET a = 2", "SHOW a", "LISTEN c", "", "--"),
        ],
    )
    def test_what_calls_no_function(self, text):
        assert is_control(text)

    @pytest.mark.parametrize(
        "text",
        [
            *("SELECT 1", "SET a = 1; SELECT f()", "COMMIT", "CALL p()", "DO $$ $$", "EXECUTE p"),
            *("INSERT INTO t VALUES (1)", "FETCH c", "SET a = '" + 2000 * "x" + "'"),
        ],
    )
    def test_what_may_call_one(self, text):
        assert not is_control(text)

    def test_commits(self):
        assert is_commit("COMMIT") and is_commit(" end;") and is_commit("commit and chain")
        assert not (is_commit("COMMIT; SELECT 1") or is_commit("SELECT 1") or is_commit(""))
        assert not is_commit("COMMIT" + 2000 * " ")


class TestBlame:
    def test_the_statement_that_ran(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("a"), snapshot(), ())
        audit.observe(Ran("b"), snapshot(TIMEOUT), ())
        audit.observe(Ran("c"), snapshot(TIMEOUT), ())
        found = audit.settle(snapshot(TIMEOUT))
        assert leaks(found) == [("b", Kind.SETTING, ("lock_timeout",), True)]
        assert audit.clean(found) == ["a", "c"]
        assert not audit.observed

    def test_what_its_text_shows_is_no_leak(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("a"), snapshot(TIMEOUT, LOCK), {Kind.SETTING})
        assert leaks(audit.settle(snapshot(TIMEOUT, LOCK))) == [("a", Kind.LOCK, ("",), True)]

    def test_what_is_gone_in_the_end_is_no_leak(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("a"), snapshot(TIMEOUT, LOCK), ())
        assert audit.pending
        assert leaks(audit.settle(snapshot(LOCK))) == [("a", Kind.LOCK, ("",), True)]
        assert not audit.pending

    def test_a_setting_may_change_again(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("a"), snapshot(TIMEOUT), ())
        last = snapshot(("SETTING", "lock_timeout", "6s"))
        audit.observe(Ran("SET"), last, {Kind.SETTING})
        assert leaks(audit.settle(last)) == [("a", Kind.SETTING, ("lock_timeout",), True)]

    def test_one_that_could_not_be_observed(self):
        audit = SessionAudit(snapshot())
        audit.wait(Ran("a"))
        audit.observe(Ran("ROLLBACK TO s"), snapshot(LOCK), ())
        audit.observe(Ran("b"), snapshot(LOCK), ())
        assert leaks(audit.settle(snapshot(LOCK))) == [("a", Kind.LOCK, ("",), True)]

    def test_several_that_could_not_be_observed(self):
        audit = SessionAudit(snapshot())
        for text in "abcdefgab":
            audit.wait(Ran(text, text.upper()))
        assert audit.waiting
        assert audit.suspect() == Ran("", "A", tuple("abcde"))
        audit.observe(audit.suspect(), snapshot(LOCK), ())
        found = audit.settle(snapshot(LOCK))
        assert leaks(found) == [("", Kind.LOCK, ("",), True)]
        assert audit.clean(found) == ["f", "g"]

    def test_the_texts_that_it_remembers_are_bounded(self):
        audit = SessionAudit(snapshot())
        for number in range(3000):
            audit.wait(Ran(f"SELECT {number}"))
        audit.observe(Ran("SELECT"), snapshot(), ())
        for number in range(3000):
            audit.observe(Ran(f"SELECT {number}"), snapshot(), ())
        assert len(audit.clean([])) == 1000

    def test_without_a_reference_nothing_is_told(self):
        audit = SessionAudit(None)
        audit.observe(Ran("a"), snapshot(LOCK), ())
        assert audit.settle(snapshot(LOCK)) == []
        audit.observe(Ran("b"), snapshot(LOCK, TIMEOUT), ())
        assert leaks(audit.settle(snapshot(LOCK, TIMEOUT))) == [
            ("b", Kind.SETTING, ("lock_timeout",), True)
        ]
        assert SessionAudit(None).settle(snapshot(LOCK)) == []

    def test_what_is_undone_anyway_is_skipped(self):
        audit = SessionAudit(snapshot())
        audit.wait(Ran("a"))
        audit.skip(snapshot(LOCK))
        assert not audit.pending
        assert audit.settle(snapshot(LOCK)) == []

    def test_a_commit_is_the_only_statement_s_or_its_own(self):
        audit = SessionAudit(snapshot())
        assert audit.suspect().text == "COMMIT"
        audit.observe(Ran("a", "there"), snapshot(), ())
        assert audit.suspect() == Ran("a", "there")
        audit.observe(Ran("b", "here"), snapshot(), ())
        assert audit.suspect() == Ran("COMMIT", "here", ("a", "b"))
        found = [Leak(audit.suspect(), Kind.CHANNEL, ("c",))]
        assert audit.clean(found) == []


class TestInTests:
    def test_what_may_be_local_is_not_sure(self):
        audit = SessionAudit(snapshot())
        after = snapshot(TIMEOUT, TABLE, LOCK, ("CURSOR", "c", "1"), ("PREPARED", "p", "1"))
        audit.observe(Ran("a"), after, ())
        assert {(leak.kind, leak.sure) for leak in audit.settle(after, in_test=True)} == {
            (Kind.SETTING, False),
            (Kind.TEMPORARY, False),
            (Kind.LOCK, False),
            (Kind.CURSOR, True),
            (Kind.PREPARED, True),
        }
        # What the end of the test does not undo is still to be undone.
        assert {leak.kind for leak in audit.settle(after)} == {Kind.LOCK, Kind.PREPARED}

    def test_locks_can_wait(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("a"), snapshot(LOCK), ())
        assert audit.settle(snapshot(LOCK), in_test=True, wait=True) == []
        assert audit.clean([]) == []
        assert leaks(audit.settle(snapshot(LOCK))) == [("a", Kind.LOCK, ("",), True)]

    @pytest.mark.parametrize("text", ["UPDATE t SET a = 1", "INSERT INTO attempt VALUES (1)"])
    def test_a_word_in_a_text_explains_nothing(self, text):
        audit = SessionAudit(snapshot())
        audit.explain(local_changes(text))
        audit.observe(Ran(text), snapshot(TIMEOUT, TABLE), ())
        found = audit.settle(snapshot(TIMEOUT, TABLE), in_test=True)
        assert {leak.kind for leak in found} == {Kind.SETTING, Kind.TEMPORARY}


class TestExplained:
    """What texts have shown is not blamed on the statement after which the server is asked."""

    @pytest.mark.parametrize(
        ("text", "row"),
        [
            ("SET LOCAL lock_timeout = '5s'", TIMEOUT),
            ("SET LOCAL TIME ZONE 'UTC'", ("SETTING", "TimeZone", "UTC")),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", READ_ONLY),
            ("SELECT 1; SET LOCAL lock_timeout = '5s'", TIMEOUT),
            ("SELECT set_config('lock_timeout', %s, true)", TIMEOUT),
            ("SELECT set_config('lock_timeout', (ARRAY[a, b])[1], 't'::bool) FROM t", TIMEOUT),
            ("SELECT set_config(%s, %s, true)", TIMEOUT),
            ("EXPLAIN ANALYZE SELECT set_config('lock_timeout', 'x', true)", TIMEOUT),
            ("SELECT query_to_xml('SELECT set_config(''lock_timeout'', ''1'', true)')", TIMEOUT),
            ("DO $$ BEGIN IF a THEN SET LOCAL lock_timeout = '5s'; END IF; END $$", TIMEOUT),
            ("DO $$ BEGIN EXECUTE 'SET LOCAL lock_timeout = 1'; END $$", TIMEOUT),
            ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", TABLE),
            ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", TABLE),
            ("SELECT pg_advisory_xact_lock(1)", LOCK),
            ("SELECT pg_try_advisory_xact_lock_shared(1)", LOCK),
        ],
    )
    def test_what_it_is(self, text, row):
        audit = SessionAudit(snapshot())
        effects = classify(text)
        audit.explain(() if effects is None else effects.resolve(None, None))
        audit.explain(local_changes(text))
        audit.observe(Ran("SELECT 1"), snapshot(row), ())
        assert audit.settle(snapshot(row), in_test=True) == []

    @pytest.mark.parametrize(
        "text",
        [
            "SET LOCAL work_mem = '5MB'",
            "SET TRANSACTION READ ONLY",
            "SAVEPOINT s",
            "SELECT set_config('work_mem', '5MB', true)",
            "UPDATE local SET set_config = 'commit' -- SET LOCAL lock_timeout",
        ],
    )
    def test_what_it_is_not(self, text):
        audit = SessionAudit(snapshot())
        audit.explain(local_changes(text))
        audit.observe(Ran("SELECT f()"), snapshot(TIMEOUT), ())
        (leak,) = audit.settle(snapshot(TIMEOUT), in_test=True)
        assert leak.ran.text == "SELECT f()"

    def test_the_next_snapshot_has_it(self):
        audit = SessionAudit(snapshot())
        audit.explain(local_changes("SET LOCAL lock_timeout = '5s'"))
        audit.observe(Ran("SELECT 1"), snapshot(TIMEOUT), ())
        after = snapshot(("SETTING", "lock_timeout", "6s"))
        audit.observe(Ran("SELECT f()"), after, ())
        (leak,) = audit.settle(after, in_test=True)
        assert leak.ran.text == "SELECT f()"

    def test_it_is_bounded(self):
        audit = SessionAudit(snapshot())
        for number in range(3000):
            audit.explain(local_changes(f"SET LOCAL app.x{number} = 1"))
        assert len(audit._explained) <= 1001

    def test_what_rollback_to_brings_back(self):
        audit = SessionAudit(snapshot())
        audit.explain(local_changes("SET LOCAL lock_timeout = '5s'"))
        audit.observe(Ran("SELECT 1"), snapshot(TIMEOUT), ())
        audit.explain(local_changes("SET LOCAL lock_timeout = '6s'"))
        audit.observe(Ran("SELECT 2"), snapshot(("SETTING", "lock_timeout", "6s")), ())
        audit.wait(Ran("SELECT 1 / 0"))
        audit.observe(Ran("ROLLBACK TO s"), snapshot(TIMEOUT, LOCK), ())
        found = audit.settle(snapshot(TIMEOUT, LOCK), in_test=True)
        assert leaks(found) == [("SELECT 1 / 0", Kind.LOCK, ("",), False)]

    def test_what_rollback_to_undoes(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("SELECT f()"), snapshot(TIMEOUT, LOCK), ())
        audit.observe(Ran("ROLLBACK TO s"), snapshot(LOCK), ())
        audit.explain(local_changes("SET LOCAL lock_timeout = '6s'"))
        audit.observe(Ran("SELECT 1"), snapshot(TIMEOUT, LOCK), ())
        found = audit.settle(snapshot(TIMEOUT, LOCK), in_test=True)
        assert leaks(found) == [("SELECT f()", Kind.LOCK, ("",), False)]

    def test_what_was_there_before_the_transaction(self):
        audit = SessionAudit(snapshot())
        audit.observe(Ran("SET"), snapshot(TIMEOUT), {Kind.SETTING})
        assert audit.settle(snapshot(TIMEOUT)) == []
        audit.observe(Ran("SELECT local()"), snapshot(("SETTING", "lock_timeout", "6s")), ())
        audit.observe(Ran("COMMIT"), snapshot(TIMEOUT), ())
        assert audit.settle(snapshot(TIMEOUT)) == []


FOUND = AuditFinding(
    sql="SELECT f()",
    alias="default",
    engine="relet.backends.psycopg",
    kind="setting",
    name="app.x",
    place="shop/views.py:12",
)


def finding(**changes):
    return replace(FOUND, **changes)


class TestReport:
    def test_as_text(self):
        report = AuditReport(
            (finding(), finding(kind="role", name="", sure=False)), {"default": "e"}
        )
        assert str(report) == (
            "2 statements on 'default' (e) left session state that relet did not see:\n"
            "- setting (app.x): SELECT f()\n    shop/views.py:12 on 'default'\n"
            "- role, if it is not local to the transaction: SELECT f()\n"
            "    shop/views.py:12 on 'default'"
        )
        assert len(report.sure) == 1

    def test_with_nothing_in_it(self):
        assert str(AuditReport()).startswith("No lease was audited")
        assert str(AuditReport((), {"a": "e"})) == "relet saw all session state on 'a' (e)."

    def test_as_a_table(self):
        lines = AuditReport((finding(sure=False),), {}).as_table().splitlines()
        assert lines[0].split() == ["ALIAS", "ENGINE", "KIND", "NAME", "PLACE", "SQL"]
        assert lines[1].split()[2:4] == ["setting?", "app.x"]

    def test_as_a_dict(self):
        report = AuditReport((finding(),), {"default": "e"})
        read = json.loads(json.dumps(report.as_dict()))
        assert [AuditFinding(**row) for row in read["rows"]] == list(report.rows)
        assert read["audited"] == {"default": "e"}

    def test_what_is_sure_comes_before_what_is_not(self):
        sure, doubtful, other = finding(), finding(sure=False), finding(alias="b")
        assert merged([doubtful, other, sure]) == (sure, other)
        assert merged([sure, other, doubtful]) == (sure, other)
