"""What a statement is like, without its values."""

import pytest

from relet.core.fingerprint import fingerprint


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT 1", "SELECT ?"),
        ("  SELECT\n\t1 ", "SELECT ?"),
        ("SELECT 'it''s', E'a\\'b', $$x'$$, $a$ $$ $a$", "SELECT ?, ?, ?, ?"),
        ("SELECT B'01', U&'x', 1.5e-3", "SELECT ?, ?, ?"),
        ('SELECT "a 1" FROM t1 WHERE x2 = 10', 'SELECT "a 1" FROM t1 WHERE x2 = ?'),
        ("SELECT a -- 'why'\n, b /* 'x' */ FROM t", "SELECT a , b FROM t"),
        ("SELECT %s, %(name)s, '%%'", "SELECT %s, %(name)s, ?"),
        ("SELECT 1 WHERE id IN (%s, %s, %s)", "SELECT ? WHERE id IN (%s, ...)"),
        ("INSERT INTO t VALUES (1, 'a', 2)", "INSERT INTO t VALUES (?, ...)"),
        ("", ""),
        ("SELECT 'without an end", "SELECT ?"),
        ("SELECT 1 /* without an end", "SELECT ?"),
        ("SELECT /* a /* b */ secret */ c --- d", "SELECT c"),
        ("a  /* b */ -- c\n  d", "a d"),
        ("E'\\", "?"),
        # With standard_conforming_strings off, the string goes on.
        (r"SELECT a, 'it\'s a secret', 'b'", "SELECT a, ?..."),
        (r"SELECT 'C:\temp', a", "SELECT ?, a"),
    ],
)
def test_shown(sql, shown):
    assert fingerprint(sql) == shown


def test_it_is_cut():
    assert fingerprint("SELECT " + "a, " * 100, length=20) == "SELECT a, a, a, a..."
    assert fingerprint("x" * 10**7).endswith("...")
