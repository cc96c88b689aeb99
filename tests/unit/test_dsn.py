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


def test_what_is_none():
    with pytest.raises(ValueError, match="not a libpq URI") as caught:
        parameters_of("mysql://someone:secret@host")
    assert "secret" not in str(caught.value)
