"""Which statements can only read: what writes, locks or calls what nobody knows cannot."""

import pytest

from relet.core.sql.readonly import only_reads


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "  select * from t where a in (1, 2) and not (b = 'insert into x')",
        'SELECT "t"."update", COUNT(*) AS "__count" FROM "t" GROUP BY 1 HAVING COUNT(*) > 1',
        "SELECT UPPER(LEFT(name, 3)), COALESCE(a, b), SUM(x) OVER (PARTITION BY y) FROM t",
        "SELECT a::numeric(10, 2), CAST(b AS varchar(3)), substring(c FROM 1 FOR 2) FROM t",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH RECURSIVE x AS (SELECT 1 UNION SELECT n + 1 FROM x) SELECT * FROM x",
        "VALUES (1, 2), (3, 4)",
        "TABLE t",
        "SELECT pg_catalog.lower(a) FROM t -- nextval('s')",
        "SELECT EXISTS(SELECT 1 FROM t WHERE a = ANY(%s)) LIMIT 1",
        "SELECT 1;",
        "SELECT a FROM t WHERE b = %s ORDER BY a FOR READ ONLY",
    ],
)
def test_reads(sql):
    assert only_reads(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "WITH x AS (SELECT 1) UPDATE t SET a = 1",
        "SELECT * INTO u FROM t",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT * FROM t FOR SHARE",
        "SELECT * FROM t FOR KEY SHARE OF t",
        "SELECT nextval('s')",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_notify('a', 'b')",
        "SELECT lo_import('x')",
        "SELECT charge_the_card(1)",
        'SELECT "charge"(1)',
        'SELECT "lower"(a) FROM t',
        "SELECT shop.lower(a) FROM t",
        "SELECT 1; DELETE FROM t",
        "SELECT 1; SELECT 2",
        "EXECUTE x",
        "EXPLAIN ANALYZE DELETE FROM t",
        "COPY t TO STDOUT",
        "CALL p()",
        "DO $$ BEGIN END $$",
        "FETCH 1 FROM c",
        "SHOW work_mem",
        'SELECT U&"lo\\0077er"(a) FROM t',
        # Where the session has standard_conforming_strings off.
        r"SELECT '\''; DELETE FROM t --'",
        # Without parameters.
        "SELECT 7 %(SELECT charge())s",
        "SELECT 7 %surcharge(1)",
    ],
)
def test_anything_else(sql):
    assert not only_reads(sql)
