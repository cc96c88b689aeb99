"""The URIs by which a server is named."""

from __future__ import annotations

import pytest

from relet.core.dsn import parameters_of


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "postgresql://someone:a%40b@db.example.org:5433/shop",
            {
                "user": "someone",
                "password": "a@b",
                "host": "db.example.org",
                "port": "5433",
                "dbname": "shop",
            },
        ),
        (
            "postgres:///shop?host=/tmp&sslmode=disable",
            {"dbname": "shop", "host": "/tmp", "sslmode": "disable"},
        ),
        ("postgresql://?dbname=shop&user=a%20b", {"dbname": "shop", "user": "a b"}),
        ("postgresql://", {}),
    ],
)
def test_parameters(uri, expected):
    assert parameters_of(uri) == expected


#: URIs that libpq reads, and some that it does not.
URIS = (
    "postgresql://someone:a%40b@db.example.org:5433/shop",
    "postgres:///shop?host=/tmp&sslmode=disable",
    "postgresql://",
    "postgresql:///",
    "postgresql://DB.Example.org//shop",
    "postgresql://h1:5432,h2:5433/shop?target_session_attrs=read-write",
    "postgresql://h1,h2/shop",
    "postgresql://h1,h2:5433",
    "postgresql://:5433/shop",
    "postgresql://%2Ftmp%2Fsocket/shop",
    "postgresql://[::1]:5433/shop",
    "postgresql://[2001:db8::1],h2:5433/shop",
    "postgresql://[fe80::1%25eth0]/shop",
    "postgresql://[::1/shop",
    "postgresql://[::1]x/shop",
    "postgresql://[]/shop",
    "postgresql://u:@h",
    "postgresql://:p@h",
    "postgresql://@h",
    "postgresql://u:a:b@h/shop",
    "postgresql://u@v@h/shop",
    "postgresql://u:a?b#c@h/shop#1",
    "postgresql://h/shop?password=a+b",
    "postgresql://h/shop?password=a%2Bb%20c",
    "postgresql://h/a+b",
    "postgresql://h/shop?user=a&user=b",
    "postgresql://u@h/shop?user=a&dbname=b&host=c&port=1",
    "postgresql://h?application_name=x",
    "postgresql://h/?application_name=x&",
    "postgresql://h/?",
    "postgresql://h/?&application_name=x",
    "postgresql://h/?application_name",
    "postgresql://h/?application_name=a=b",
    "postgresql://h/?ssl=true",
    "postgresql://h/?options=-c%20a%3Db",
    "postgresql://h/a%",
    "postgresql://h/a%zz",
    "postgresql://h/a%00",
    "postgresql://h/%C3%A9é",
    "POSTGRESQL://h",
    "mysql://h",
)


@pytest.mark.parametrize("uri", URIS)
def test_libpq_reads_the_same(uri):
    conninfo = pytest.importorskip("psycopg.conninfo", reason="psycopg is not installed")
    try:
        expected = conninfo.conninfo_to_dict(uri)
    except conninfo.e.ProgrammingError:
        with pytest.raises(ValueError, match="not a libpq URI"):
            parameters_of(uri)
    else:
        assert parameters_of(uri) == {name: value for name, value in expected.items() if value}


@pytest.mark.parametrize(
    "uri",
    [
        "mysql://someone:secret@host",
        "postgresql://u:secret/x@h/db",
        "postgresql://u:p@h:secret/db",
        "postgresql://h/db?port=secret",
        "postgresql://u:secret%@h/db",
        "postgresql://u:secret%ff@h/db",
        "postgresql://[secret/db",
        "postgresql://h/db?secret",
    ],
)
def test_what_is_none(uri):
    with pytest.raises(ValueError, match="not a libpq URI") as caught:
        parameters_of(uri)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None and not isinstance(caught.value, UnicodeError)
