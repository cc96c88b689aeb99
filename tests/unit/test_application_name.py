"""Names in ``pg_stat_activity`` fit there, whatever the host and the route are called."""

import os

import pytest

from relet.core import application_name
from relet.core.application_name import names_application, process_name, transaction_name

PID = os.getpid()
HOSTS = [
    "web-1",
    "",
    "s\x00h'o\\p\n",
    "höst",
    "h" * 64,
    "shop-web-7d4b9c5f6d-x2x9z",
    "ip-10-0-1-17.eu-west-1.compute.internal",
]


@pytest.fixture
def host(monkeypatch):
    def put(name):
        application_name._host.cache_clear()
        monkeypatch.setattr(application_name.socket, "gethostname", lambda: name)

    yield put
    application_name._host.cache_clear()


def fits(name):
    return len(name) <= 63 and all(" " <= character <= "~" for character in name)


@pytest.mark.parametrize("name", HOSTS)
def test_of_a_process(host, name):
    host(name)
    assert fits(process_name())
    assert process_name().startswith("relet ") and process_name().endswith(f":{PID}")


@pytest.mark.parametrize("route", ["", "/", "/orders/<int:pk>/", "/é'\\\0\n/", "/" * 10**6])
@pytest.mark.parametrize("name", HOSTS)
def test_of_a_transaction(host, name, route):
    host(name)
    found = transaction_name(route)
    assert fits(found) and f":{PID}" in found
    assert not route or f":{PID} /" in found


def test_examples(host):
    host("web-1")
    assert process_name() == f"relet web-1:{PID}"
    assert transaction_name("/orders/<pk>/") == f"web-1:{PID} /orders/<pk>/"
    assert transaction_name("") == f"web-1:{PID}"
    host("shop-web-7d4b9c5f6d-x2x9z")
    assert transaction_name("/").startswith("shop-web-7d~9c5f6d-x2x9z:")
    host("ip-10-0-1-17.eu-west-1.compute.internal")
    assert transaction_name("/") == f"ip-10-0-1-17:{PID} /"
    assert transaction_name("/é/\n") == f"ip-10-0-1-17:{PID} /?/?"
    assert transaction_name("/" * 100).endswith("/~")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (None, False),
        ("", False),
        ("-c search_path=app", False),
        ("-c application_name=shop", True),
        ("--application-name=shop", True),
        ("-cApplication_Name=shop", True),
    ],
)
def test_options_that_name(options, names):
    assert names_application(options) is names
