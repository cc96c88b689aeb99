"""How connections are opened, from whatever libpq's users say."""

from __future__ import annotations

import gc
import getpass
import hashlib
import hmac
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from base64 import b64decode, b64encode
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import ModuleType

import pg8000.dbapi
import pg8000.native
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError as DjangosOperationalError
from hypothesis import example, given
from hypothesis import strategies as st
from scramp import ScramClient

from relet.adapters.pg8000 import connect as connecting
from relet.adapters.pg8000 import dbapi, settings
from relet.adapters.pg8000.scram import Client, saslprep
from relet.core import ConfigurationError, TransactionStatus

from ....support.dsn import parameters_for
from ....support.sessions import kill
from ....support.wire import Wire


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch, tmp_path):
    """No socket, and nothing of this machine's own settings."""
    for variable in (*settings.LIBPQ.values(), *settings.DEMANDS, "PGREQUIRESSL"):
        if variable is not None:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path))
    yield
    gc.collect()


@pytest.fixture
def refusing():
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def setting(raw, name):
    ((value,),) = raw.run(f"SELECT current_setting('{name}', true)")
    return value


class TestPlaces:
    def test_a_port(self, connect, wire):
        assert connect(**wire.place).run("SELECT 1") == [(1,)]
        assert len(wire.sessions) == 1

    def test_a_unix_socket(self, connect, parameters):
        if not parameters["host"].startswith("/"):
            pytest.skip("the server has no Unix socket")
        assert connect().run("SELECT inet_client_addr() IS NULL") == [(True,)]

    def test_the_usual_unix_socket(self, connect, parameters, monkeypatch, tmp_path):
        if not parameters["host"].startswith("/"):
            pytest.skip("the server has no Unix socket")
        monkeypatch.setattr(settings, "SOCKET_DIRECTORIES", (str(tmp_path), parameters["host"]))
        assert connect(host=None).run("SELECT 1") == [(1,)]
        assert connect(host="").run("SELECT 1") == [(1,)]

    def test_localhost_is_the_last_resort(self, connect, monkeypatch, refusing):
        monkeypatch.setattr(settings, "SOCKET_DIRECTORIES", ())
        with pytest.raises(dbapi.OperationalError, match=f'at "localhost", port {refusing}'):
            connect(host=None, port=refusing)

    def test_an_address(self, connect, wire):
        raw = connect(host="nowhere.invalid", hostaddr="127.0.0.1", port=wire.port)
        assert raw.run("SELECT 1") == [(1,)]
        assert connect(host=None, hostaddr="127.0.0.1", port=wire.port).run("SELECT 1") == [(1,)]

    def test_nobody_listens(self, connect, refusing):
        says = f'connection to server at "127.0.0.1", port {refusing} failed: .*refused'
        with pytest.raises(dbapi.OperationalError, match=says) as caught:
            connect(host="127.0.0.1", port=refusing)
        assert caught.value.sqlstate is None

    @pytest.mark.parametrize("timeout", [None, 5])
    def test_no_name_of_a_host(self, connect, timeout):
        with pytest.raises(dbapi.OperationalError, match="failed: this is not a host name"):
            connect(host=64 * "x", connect_timeout=timeout)

    def test_no_socket_there(self, connect, tmp_path):
        says = f'connection to server on socket "{tmp_path}/.s.PGSQL.5433" failed: .*No such file'
        with pytest.raises(dbapi.OperationalError, match=says):
            connect(host=str(tmp_path), port=5433)

    def test_the_server_refuses(self, connect):
        with pytest.raises(dbapi.OperationalError, match='"relet_nobody" does not exist') as caught:
            connect(user="relet_nobody")
        assert caught.value.sqlstate == "28000"

    def test_no_such_database(self, connect):
        with pytest.raises(dbapi.OperationalError, match='"relet_none" does not exist') as caught:
            connect(dbname="relet_none")
        assert caught.value.sqlstate == "3D000"

    @pytest.mark.parametrize("says", [b"", b"E", b"H"])
    def test_somebody_else_listens(self, connect, says):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer():
                for _ in range(2):
                    client, _ = listener.accept()
                    with client:
                        client.recv(1000)
                        client.sendall(says)

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(dbapi.OperationalError, match="connection to server at"):
                connect(host="127.0.0.1", port=listener.getsockname()[1])
            thread.join()

    def test_who_one_is(self, connect, admin, monkeypatch):
        """The role is that of the system's user, the database is that of the role's name."""
        admin.run("CREATE ROLE relet_alone LOGIN")
        admin.run("CREATE DATABASE relet_alone OWNER relet_alone")
        try:
            monkeypatch.setattr(getpass, "getuser", lambda: "relet_alone")
            with connect(user=None, dbname=None) as raw:
                assert raw.run("SELECT current_user, current_database()::text") == [
                    ("relet_alone", "relet_alone")
                ]
                assert raw.info.user == "relet_alone"
        finally:
            admin.run("DROP DATABASE relet_alone WITH (FORCE)")
            admin.run("DROP ROLE relet_alone")


class TestSessions:
    def test_utf8_and_autocommit_off(self, parameters):
        with closing(dbapi.connect(**parameters)) as raw:
            assert setting(raw, "client_encoding") == "UTF8"
            assert raw.autocommit is False
            assert raw.transaction_status == TransactionStatus.IDLE

    def test_application_name(self, connect):
        assert setting(connect(application_name="relet's"), "application_name") == "relet's"

    def test_numbers_in_the_place_of_texts(self, connect):
        raw = connect(application_name=7, password=1234, options="")
        assert setting(raw, "application_name") == "7"

    @pytest.mark.parametrize("home", ["/" + 5000 * "x", None])
    def test_a_home_directory_that_cannot_be_read(self, connect, wire, monkeypatch, home):
        """That of another role, from whom a service was started; or there is none."""
        if home is not None:
            monkeypatch.setenv("HOME", home)
        else:
            pwd = pytest.importorskip("pwd", reason="the system has no password database")
            monkeypatch.delenv("HOME")
            monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
        connect(**wire.place)
        assert len(wire.sessions) == 1
        with pytest.raises(ConfigurationError, match="not found in any service file"):
            connect(service="here")

    def test_fallback_application_name(self, connect):
        given = {"fallback_application_name": "other"}
        assert setting(connect(**given), "application_name") == "other"
        given["application_name"] = "relet"
        assert setting(connect(**given), "application_name") == "relet"

    def test_options(self, connect):
        raw = connect(options="-c statement_timeout=7s -c search_path=a,b")
        assert setting(raw, "statement_timeout") == "7s"
        assert setting(raw, "search_path") == "a,b"

    def test_startup_params(self, connect):
        raw = connect(startup_params={"statement_timeout": "7s"})
        assert setting(raw, "statement_timeout") == "7s"

    def test_options_that_the_server_does_not_know(self, connect):
        with pytest.raises(
            dbapi.OperationalError, match='unrecognized configuration parameter "x"'
        ):
            connect(options="-c x=1")

    @pytest.mark.parametrize(
        ("given", "value"), [({}, 1), ({"keepalives": 0}, 0), ({"tcp_keepalive": False}, 0)]
    )
    def test_keepalives(self, connect, wire, given, value):
        raw = connect(**wire.place, **given)
        sock = socket.socket(fileno=os.dup(raw.fileno()))
        with sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == value
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    @pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="it is Linux's")
    def test_keepalives_in_detail(self, connect, wire):
        given = {"keepalives_idle": "11", "keepalives_interval": 12, "keepalives_count": 13}
        raw = connect(**wire.place, **given, tcp_user_timeout=14)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        with socket.socket(fileno=os.dup(raw.fileno())) as sock:
            found = [
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (*options, socket.TCP_USER_TIMEOUT)
            ]
        assert found == [11, 12, 13, 14]

    def test_source_address(self, connect, wire):
        raw = connect(**wire.place, source_address=("127.0.0.1", 0))
        assert raw.run("SELECT 1") == [(1,)]


class TestTimeouts:
    @pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
    @pytest.mark.parametrize("given", [{"connect_timeout": 1}, {"timeout": 0.1}])
    def test_a_server_that_never_answers(self, connect, given, sslmode):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(dbapi.OperationalError, match="failed: timed out"):
                connect(host="127.0.0.1", port=port, sslmode=sslmode, **given)
            # Another time, without TLS, would take as long again.
            listener.accept()[0].close()
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()

    def test_a_unix_socket_that_never_answers(self, connect, tmp_path):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / ".s.PGSQL.5432"))
            listener.listen()
            with pytest.raises(dbapi.OperationalError, match="timed out"):
                connect(host=str(tmp_path), port=5432, timeout=0.1)

    @pytest.mark.parametrize("none", [None, "", 0, "0", -1])
    def test_no_limit(self, connect, none):
        assert connect(connect_timeout=none).wire.pg._usock.gettimeout() is None

    def test_it_is_for_connecting_only(self, connect):
        assert connect(connect_timeout=1).wire.pg._usock.gettimeout() is None
        assert connect(connect_timeout=1, timeout=7).wire.pg._usock.gettimeout() == 7


class TestServices:
    @pytest.fixture
    def file(self, tmp_path, monkeypatch):
        path = tmp_path / "services"
        path.write_text(
            "# comment\n[other]\napplication_name=wrong\n[here]\napplication_name=it's 100%\n"
            "password=\noptions = -c statement_timeout=7s\n[DEFAULT]\nport=1\n"
        )
        monkeypatch.setenv("PGSERVICEFILE", str(path))
        return path

    def test_a_service(self, connect, file):
        raw = connect(service="here")
        assert setting(raw, "application_name") == "it's 100%"
        assert setting(raw, "statement_timeout") == "7s"

    def test_of_the_environment(self, connect, file, monkeypatch):
        monkeypatch.setenv("PGSERVICE", "here")
        monkeypatch.setenv("PGAPPNAME", "of the environment")
        assert setting(connect(), "application_name") == "it's 100%"

    def test_what_is_given_comes_first(self, connect, file):
        raw = connect(service="here", application_name="mine")
        assert setting(raw, "application_name") == "mine"

    def test_in_the_home_directory(self, connect, tmp_path):
        (tmp_path / ".pg_service.conf").write_text("[here]\napplication_name=at home\n")
        assert setting(connect(service="here"), "application_name") == "at home"

    def test_of_the_system(self, connect, file, tmp_path):
        (tmp_path / "pg_service.conf").write_text("[there]\napplication_name=everybody\n")
        assert setting(connect(service="there"), "application_name") == "everybody"

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("[here]\napplication_name=a\n  options=-c geqo=off\n", "a"),
            ("junk\n[other]\njunk\n[here]\napplication_name=a\n[next]\njunk\n", "a"),
            ("[here]\napplication_name=a\napplication_name=b\n", "a"),
            ("[here]\napplication_name=a\n[here]\napplication_name=b\n", "a"),
            ("[here]\n;x=1\napplication_name=a\n", None),
            ("[here]\napplication_name=a;b#c=d  \r\n", "a;b#c=d"),
            ("[here]\napplication_name= a\n", " a"),
            ("[heres]\napplication_name=b\n[here] x\napplication_name=a\n", "a"),
        ],
    )
    def test_libpq_reads_the_same(self, server, file, text, found):
        file.write_text(text)
        opened = [dbapi.connect]
        with suppress(ImportError):
            from psycopg import connect

            opened.append(connect)
        for open_it in opened:
            with ExitStack() as stack:
                if found is None:
                    stack.enter_context(pytest.raises(Exception, match=r"services"))
                raw = open_it(**{**parameters_for(server), "service": "here"})
                stack.callback(raw.close)
                cursor = raw.cursor()
                cursor.execute("SELECT current_setting('application_name')")
                assert cursor.fetchone() == (found,)

    def test_no_error_shows_a_line(self, connect, file):
        file.write_text("[here]\npassword: hunter2\n")
        with pytest.raises(ConfigurationError, match="line 2") as caught:
            connect(service="here")
        assert "hunter2" not in str(caught.value)

    def test_none_of_that_name(self, connect, file):
        with pytest.raises(ConfigurationError, match="'service' is 'elsewhere'"):
            connect(service="elsewhere")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("application_name\n", "services'"),
            ("nonsense=1\n", "unknown 'nonsense'"),
            ("connect=os.system\n", "unknown 'connect'"),
            ("service=other\n", "unknown 'service'"),
            (
                "sslmode=maybe\n",
                "'sslmode' is 'maybe'; it must be one of 'disable'.*service file.*sslmode",
            ),
            ("name=\xff\n", "services'"),
        ],
    )
    def test_what_is_wrong_in_it(self, connect, file, text, says):
        file.write_text(f"[here]\n{text}", encoding="latin-1")
        with pytest.raises(ConfigurationError, match=says):
            connect(service="here")


class TestEnvironment:
    def test_all_of_it(self, wire, parameters, monkeypatch):
        monkeypatch.setenv("PGHOST", "127.0.0.1")
        monkeypatch.setenv("PGPORT", str(wire.port))
        monkeypatch.setenv("PGUSER", parameters["user"])
        monkeypatch.setenv("PGDATABASE", parameters["dbname"])
        monkeypatch.setenv("PGAPPNAME", "of the environment")
        monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=7s")
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "9")
        monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
        with closing(dbapi.connect()) as raw:
            assert setting(raw, "application_name") == "of the environment"
            assert setting(raw, "statement_timeout") == "7s"
        assert len(wire.sessions) == 1

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("PGPORT", "many"),
            ("PGPORT", "1,2,3"),
            ("PGCONNECT_TIMEOUT", "soon"),
            ("PGSSLMODE", "maybe"),
            ("PGTARGETSESSIONATTRS", "best"),
            ("PGGSSENCMODE", "require"),
        ],
    )
    def test_what_is_wrong_in_it(self, monkeypatch, variable, value):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigurationError, match=f"{value}|3 ports.*Set by the environment"):
            dbapi.connect()

    @pytest.mark.parametrize(
        ("variable", "value", "default"),
        [
            ("PGCHANNELBINDING", "require", "prefer"),
            ("PGREQUIREAUTH", "scram-sha-256", ""),
            ("PGREQUIREPEER", "postgres", ""),
            ("PGSSLCERTMODE", "require", "allow"),
            ("PGSSLCRL", "revoked.pem", ""),
            ("PGSSLCRLDIR", "revoked", ""),
            ("PGSSLMAXPROTOCOLVERSION", "TLSv1.2", ""),
            ("PGSSLMINPROTOCOLVERSION", "TLSv1.3", "tlsv1.2"),
            ("PGSSLNEGOTIATION", "direct", "postgres"),
            ("PGSSLSNI", "0", "1"),
        ],
    )
    def test_what_it_demands_in_vain(self, connect, monkeypatch, variable, value, default):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigurationError, match=f"{variable} is '{value}'"):
            connect()
        monkeypatch.setenv(variable, default)
        connect().close()

    def test_a_context_comes_before_its_demands_of_tls(self, monkeypatch):
        monkeypatch.setenv("PGSSLMINPROTOCOLVERSION", "TLSv1.3")
        settings.complete({"ssl_context": ssl.create_default_context()})
        settings.complete({"ssl_context": False})
        with pytest.raises(ConfigurationError, match="PGSSLMINPROTOCOLVERSION"):
            settings.complete({"ssl_context": True})
        monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
        with pytest.raises(ConfigurationError, match="PGREQUIREAUTH"):
            settings.complete({"ssl_context": False})

    def test_tls_that_its_older_name_requires(self, monkeypatch):
        monkeypatch.setenv("PGREQUIRESSL", "1")
        assert settings.complete({})["sslmode"] == "require"
        assert settings.complete({"sslmode": "prefer"})["sslmode"] == "prefer"
        assert "sslmode" not in settings.complete({"ssl_context": False})
        monkeypatch.setenv("PGSSLMODE", "allow")
        assert settings.complete({})["sslmode"] == "allow"
        monkeypatch.delenv("PGSSLMODE")
        monkeypatch.setenv("PGREQUIRESSL", "0")
        assert "sslmode" not in settings.complete({})

    def test_a_context_comes_before_its_sslmode(self, monkeypatch):
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        assert "sslmode" not in settings.complete({"ssl_context": False})


@pytest.fixture
def passwords(tmp_path):
    """Write a password file, and look something up in it."""
    path = tmp_path / "passwords"

    def look(text, host="db.example", port=5432, mode=0o600, **known):
        path.write_text(text)
        path.chmod(mode)
        known = {"user": "me", "dbname": "shop", "passfile": str(path), **known}
        return settings.password(known, host, port)

    return look


class TestPasswordFile:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("db.example:5432:shop:me:secret", "secret"),
            ("*:*:*:*:secret\n", "secret"),
            ("# comment\n\nother:5432:shop:me:no\ndb.example:5432:shop:me:yes\n", "yes"),
            ("*:5433:*:*:no\n*:*:other:*:no\n*:*:*:you:no\n", None),
            ("*:*:*:*:first\n*:*:*:*:second\n", "first"),
            (r"*:*:*:*:a\:b\\c", r"a:b\c"),
            ("*:*:*:*:secret:and more", "secret"),
            ("*:*:*:*:crlf\r\n", "crlf"),
            ("*:*:*:*:sp ace \u2028#", "sp ace \u2028#"),
            ("*:*:*:*:at the end\\", "at the end\\"),
            ("*:*:*:*", None),
            ("#*:*:*:*:secret", None),
            (r"\*:*:*:*:secret", None),
            ("", None),
        ],
    )
    def test_lines(self, passwords, text, found):
        assert passwords(text) == found

    def test_escapes_in_names(self, passwords):
        text = "2001\\:db8\\:\\:1:*:*:*:six\n"
        assert passwords(text, host="2001:db8::1") == "six"

    @pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    def test_that_others_may_read(self, passwords, mode):
        assert passwords("*:*:*:*:secret", mode=mode) is None

    def test_unix_sockets(self, passwords):
        text = "localhost:*:*:*:usual\n/srv/run:*:*:*:special\n"
        assert passwords(text, host="/tmp") == "usual"
        assert passwords(text, host="/srv/run") == "special"
        assert passwords(text, host="localhost") == "usual"

    def test_the_database_is_that_of_the_role(self, passwords):
        assert passwords("*:*:me:me:secret", dbname="me") == "secret"

    def test_none(self, tmp_path):
        assert settings.password({"user": "me"}, "localhost", 5432) is None
        assert settings.password({"user": "me", "passfile": tmp_path}, "localhost", 5432) is None

    def test_in_the_home_directory(self, tmp_path):
        (tmp_path / ".pgpass").write_text("*:*:*:*:at home")
        (tmp_path / ".pgpass").chmod(0o600)
        assert settings.password({"user": "me"}, "localhost", 5432) == "at home"


@pytest.fixture(scope="module")
def scram(server):
    """Roles that need a password, ``it's:secret``; their names are the methods."""
    with ExitStack() as stack:
        admin = stack.enter_context(closing(dbapi.connect(**parameters_for(server))))
        admin.autocommit = True
        try:
            ((path, before),) = admin.run(
                "SELECT current_setting('hba_file'), pg_read_file(current_setting('hba_file'))"
            )
        except dbapi.Error as error:
            pytest.skip(f"the server's pg_hba.conf is out of reach: {error}")
        lines = "".join(
            f"{kind} all +relet_{method} {where}{method.replace('_', '-')}\n"
            for method in ("scram_sha_256", "md5", "password")
            for kind, where in (("local", ""), ("host", "all "))
        )

        def write(text):
            cursor = admin.cursor()
            cursor.execute(
                "COPY (SELECT unnest(%s::text[])) TO " + dbapi.literal(path), [text.split("\n")]
            )
            admin.run("SELECT pg_reload_conf()")

        for method in ("scram_sha_256", "md5", "password"):
            # On the role of md5, too, it is SCRAM where the server has no MD5 any more.
            kept = "md5" if method == "md5" else "scram-sha-256"
            admin.run(f"SET password_encryption = '{kept}'")
            admin.run(f"CREATE ROLE relet_{method} LOGIN PASSWORD 'it''s:secret'")
            stack.callback(admin.run, f"DROP ROLE relet_{method}")
        if "\\" in before or "\t" in before:
            before = before.replace("\t", " ")
        if "\\" in before:
            pytest.skip("the server's pg_hba.conf has backslashes in it")
        stack.callback(write, before)
        write(lines + before)
        yield {**parameters_for(server), "dbname": "postgres"}


class TestPasswords:
    @pytest.mark.parametrize("method", ["scram_sha_256", "md5", "password"])
    def test_a_password(self, scram, method):
        given = {**scram, "user": f"relet_{method}"}
        with closing(dbapi.connect(**given, password="it's:secret")) as raw:
            assert raw.run("SELECT current_user::text") == [(f"relet_{method}",)]
        says = f'password authentication failed for user "relet_{method}"'
        with pytest.raises(dbapi.OperationalError, match=says) as caught:
            dbapi.connect(**given, password="wrong")
        assert caught.value.sqlstate == "28P01"
        with pytest.raises(dbapi.OperationalError, match=r"no password (was )?\w+ed"):
            dbapi.connect(**given)

    @pytest.mark.parametrize(
        "password",
        ["\N{GRINNING FACE}", "a\tb", "a\n", "\x7f", "\N{HEBREW LETTER ALEF}b", "\N{SOFT HYPHEN}"],
    )
    @pytest.mark.parametrize("tls", [False, True])
    def test_that_saslprep_prohibits(self, scram, admin, certificates, password, tls):
        role = "relet \N{GRINNING FACE},=\t"
        named, quoted = dbapi.identifier(role), dbapi.literal(password)
        with ExitStack() as stack:
            admin.run("SET password_encryption = 'scram-sha-256'")
            admin.run(f"CREATE ROLE {named} LOGIN PASSWORD {quoted} IN ROLE relet_scram_sha_256")
            stack.callback(admin.run, f"DROP ROLE {named}")
            given = {**scram, "user": role}
            if tls:
                wire = stack.enter_context(Wire(scram, tls=certificates.server()))
                given |= {**wire.place, "sslmode": "require"}
            with closing(dbapi.connect(**given, password=password)) as raw:
                assert raw.run("SELECT current_user::text") == [(role,)]
            with pytest.raises(dbapi.OperationalError, match="password authentication failed"):
                dbapi.connect(**given, password=password + "\t")

    def test_a_server_that_does_not_know_it(self):
        scramps = ScramClient(["SCRAM-SHA-256"], "*", "*")
        nonce = scramps.get_client_first().rpartition("r=")[2]
        client = Client(scramps, "a\tb")
        client.set_server_first(f"r={nonce}more,s=QSXCR+Q6sek8bf92,i=4096")
        client.get_client_final()
        with pytest.raises(dbapi.OperationalError, match="incorrect server signature"):
            client.set_server_final("v=" + 43 * "A" + "=")

    @given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
    @example("a\N{SOFT HYPHEN}b\N{NO-BREAK SPACE}c")
    @example("\N{ZERO WIDTH SPACE}")
    @example("\N{LATIN SMALL LIGATURE FI}\N{COMBINING DIAERESIS}")
    @example("\N{COMBINING GRAVE TONE MARK}a")
    @example("\N{HEBREW LETTER ALEF}1\N{HEBREW LETTER BET}")
    def test_libpq_prepares_the_same(self, password):
        pq = pytest.importorskip("psycopg.pq", reason="psycopg is not installed")
        raw = pq.PGconn.connect(b"host=/nowhere")
        kept = raw.encrypt_password(password.encode(), b"me", b"scram-sha-256").decode()
        iterations, salt = kept.split("$")[1].split(":")
        salted = hashlib.pbkdf2_hmac(
            "sha256", saslprep(password).encode(), b64decode(salt), int(iterations)
        )
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        assert kept.endswith(b64encode(server_key).decode())

    def test_where_it_is_looked_for(self, scram, monkeypatch, tmp_path):
        given = {**scram, "user": "relet_scram_sha_256"}
        path = tmp_path / "passwords"
        path.write_text(f"{given['host']}:*:*:relet_scram_sha_256:it's\\:secret\n")
        path.chmod(0o600)
        dbapi.connect(**given, passfile=path).close()
        monkeypatch.setenv("PGPASSFILE", str(path))
        dbapi.connect(**given).close()
        monkeypatch.setenv("PGPASSWORD", "wrong")
        with pytest.raises(dbapi.OperationalError):
            dbapi.connect(**given)
        monkeypatch.setenv("PGPASSWORD", "it's:secret")
        dbapi.connect(**given, passfile="/nowhere").close()

    def test_over_tls(self, scram, certificates):
        with Wire(scram, tls=certificates.server()) as wire:
            given = {**scram, **wire.place, "user": "relet_scram_sha_256", "sslmode": "require"}
            dbapi.connect(**given, password="it's:secret").close()
            assert wire.secured == 1


class Certificates:
    """An authority, and what it has signed: for localhost, and for a client."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in "authority", "stranger":
            self._openssl("req", "-x509", *self._key(name), "-subj", f"/CN={name}", "-days", "3")
        for name in "localhost", "client":
            subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
            self._openssl("req", *self._key(name), *subject)
            self._openssl(
                *("x509", "-req", "-in", f"{name}.crt", "-out", f"{name}.crt", "-days", "3"),
                *("-CA", "authority.crt", "-CAkey", "authority.key", "-set_serial", "7"),
                *("-copy_extensions", "copy"),
            )

    def revoke(self, serial: str) -> str:
        """Return a list of the authority's with *serial* in it."""
        (self.path / "index").write_text(f"R\t351231235959Z\t250101000000Z\t{serial}\t-\t/CN=x\n")
        (self.path / "conf").write_text(
            "[ca]\ndefault_ca=it\n[it]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=3\n"
        )
        files = ("-config", "conf", "-cert", "authority.crt", "-keyfile", "authority.key")
        self._openssl("ca", "-gencrl", *files, "-out", f"{serial}.crl")
        return self[f"{serial}.crl"]

    @staticmethod
    def _key(name: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return (*curve, "-keyout", f"{name}.key", "-out", f"{name}.crt")

    def _openssl(self, *command: str) -> None:
        done = subprocess.run(
            ["openssl", *command], cwd=self.path, capture_output=True, check=False, text=True
        )
        if done.returncode:
            pytest.skip(f"openssl {command[0]} failed: {done.stderr}")

    def __getitem__(self, name: str) -> str:
        return str(self.path / name)

    def server(self, *, client: bool = False) -> ssl.SSLContext:
        """Return what a server has; with *client*, it asks for the client's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self["localhost.crt"], self["localhost.key"])
        if client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self["authority.crt"])
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls(parameters, certificates):
    """A server that has TLS."""
    with Wire(parameters, tls=certificates.server()) as wire:
        yield wire


class TestTLS:
    @pytest.mark.parametrize(
        ("sslmode", "secured"), [(None, 1), ("disable", 0), ("allow", 0), ("prefer", 1)]
    )
    def test_modes_that_do_without(self, connect, tls, wire, sslmode, secured):
        connect(**tls.place, sslmode=sslmode)
        assert (tls.secured, len(tls.sessions)) == (secured, 1)
        connect(**wire.place, sslmode=sslmode)
        assert len(wire.sessions) == 1

    def test_require(self, connect, tls, wire):
        connect(**tls.place, sslmode="require")
        assert tls.secured == 1
        says = "the server does not support SSL, but SSL was required"
        with pytest.raises(dbapi.OperationalError, match=says):
            connect(**wire.place, sslmode="require")

    def test_a_long_wait(self, connect, tls, raw):
        """It goes on after it has looked for signals."""
        for connection in raw, connect(**tls.place, sslmode="require"):
            assert connection.run("SELECT 1 FROM pg_sleep(0.4)") == [(1,)]

    def test_allow_where_the_server_insists(self, connect, parameters, certificates):
        with Wire(parameters, tls=certificates.server(), only_tls=True) as wire:
            connect(**wire.place, sslmode="allow")
            assert (wire.refused, wire.secured) == (1, 1)
            with pytest.raises(dbapi.OperationalError, match="no encryption"):
                connect(**wire.place, sslmode="disable")

    def test_prefer_where_tls_fails(self, connect, parameters, certificates):
        context = certificates.server(client=True)
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # later, it fails after the handshake
        with Wire(parameters, tls=context) as wire:
            connect(**wire.place, sslmode="prefer")
            assert wire.secured == 0
            with pytest.raises(dbapi.OperationalError, match=r"handshake|alert"):
                connect(**wire.place, sslmode="require")

    @pytest.mark.parametrize("sslmode", ["prefer", "allow"])
    def test_who_is_refused_without_any_tls(self, connect, wire, sslmode):
        with pytest.raises(dbapi.OperationalError, match='"relet_nobody" does not exist'):
            connect(**wire.place, sslmode=sslmode, user="relet_nobody")
        if sslmode == "prefer":  # the same thing would be said again
            assert len(wire.sessions) == 1

    def test_who_is_refused_with_tls_and_without(self, connect, tls):
        for sslmode in "allow", "prefer":
            with pytest.raises(dbapi.OperationalError, match='"relet_nobody" does not exist'):
                connect(**tls.place, sslmode=sslmode, user="relet_nobody")
        assert tls.secured == 2
        assert len(tls.sessions) == 4

    def test_who_is_refused_with_tls_where_the_server_insists(
        self, connect, parameters, certificates
    ):
        """The second attempt must not hide why the first one failed."""
        with Wire(parameters, tls=certificates.server(), only_tls=True) as wire:
            with pytest.raises(dbapi.OperationalError) as caught:
                connect(**wire.place, user="relet_nobody")
            assert (wire.secured, wire.refused) == (1, 1)
        first, second = str(caught.value).splitlines()
        assert 'role "relet_nobody" does not exist' in first
        assert "no encryption" in second
        assert caught.value.sqlstate == "28000"

    @pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
    def test_an_authority(self, connect, tls, certificates, sslmode):
        given = {"host": "localhost", "port": tls.port, "sslmode": sslmode}
        connect(**given, sslrootcert=certificates["authority.crt"])
        assert tls.secured == 1
        with pytest.raises(dbapi.OperationalError, match="certificate verify failed"):
            connect(**given, sslrootcert=certificates["stranger.crt"])
        with pytest.raises(dbapi.OperationalError, match=r'certificate file ".*" does not'):
            connect(**given)
        with pytest.raises(dbapi.OperationalError, match='file "/nowhere" does not exist'):
            connect(**given, sslrootcert="/nowhere")

    def test_a_certificate_that_the_authority_has_revoked(
        self, connect, tls, certificates, tmp_path
    ):
        given = {**tls.place, "sslmode": "verify-ca"}
        given["sslrootcert"] = certificates["authority.crt"]
        (tmp_path / ".postgresql").mkdir()
        listed = tmp_path / ".postgresql" / "root.crl"
        shutil.copy(certificates.revoke("08"), listed)
        connect(**given)
        shutil.copy(certificates.revoke("07"), listed)
        with pytest.raises(dbapi.OperationalError, match="certificate revoked"):
            connect(**given)
        connect(**tls.place, sslmode="prefer")  # it verifies nothing
        listed.write_text("nothing")
        with pytest.raises(dbapi.OperationalError, match=r"the revocation list .*root\.crl"):
            connect(**given)

    def test_only_verify_full_looks_at_the_name(self, connect, tls, certificates):
        given = {**tls.place, "sslrootcert": certificates["authority.crt"]}
        connect(**given, sslmode="verify-ca")
        with pytest.raises(dbapi.OperationalError, match=r"verify failed.*127\.0\.0\.1"):
            connect(**given, sslmode="verify-full")
        # The name is the host's, wherever that is.
        given |= {"host": "localhost", "hostaddr": "127.0.0.1"}
        connect(**given, sslmode="verify-full")

    def test_require_with_an_authority_verifies(self, connect, tls, certificates, tmp_path):
        given = {**tls.place, "sslmode": "require"}
        with pytest.raises(dbapi.OperationalError, match="certificate verify failed"):
            connect(**given, sslrootcert=certificates["stranger.crt"])
        (tmp_path / ".postgresql").mkdir()
        shutil.copy(certificates["stranger.crt"], tmp_path / ".postgresql" / "root.crt")
        with pytest.raises(dbapi.OperationalError, match="certificate verify failed"):
            connect(**given)
        connect(**given, sslrootcert=certificates["authority.crt"])

    def test_an_authority_is_the_only_one(self, certificates, monkeypatch):
        """Not beside those of the system: any of them could sign for the server."""
        monkeypatch.setenv("SSL_CERT_FILE", certificates["stranger.crt"])
        assert ssl.create_default_context().get_ca_certs()
        place = connecting.Endpoint("db.example", 5432, "")
        known = {"sslmode": "verify-full", "sslrootcert": certificates["authority.crt"]}
        ((context, needed),) = connecting._tls_attempts(known, place)
        (authority,) = context.get_ca_certs()
        assert authority["subject"] == ((("commonName", "authority"),),)
        assert needed

    def test_the_systems_authorities(self, connect, tls, certificates, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", certificates["authority.crt"])
        given = {"host": "localhost", "port": tls.port, "sslrootcert": "system"}
        monkeypatch.setattr(ssl, "VERIFY_X509_STRICT", 0)
        original = ssl.create_default_context

        def relaxed(*args, **kwargs):
            context = original(*args, **kwargs)
            context.verify_flags = ssl.VERIFY_DEFAULT
            return context

        monkeypatch.setattr(ssl, "create_default_context", relaxed)
        connect(**given)
        assert tls.secured == 1
        with pytest.raises(dbapi.OperationalError, match="verify failed"):
            connect(**{**given, "host": "127.0.0.1"})
        with pytest.raises(ConfigurationError, match="set 'sslmode' to 'verify-full'"):
            connect(**given, sslmode="require")

    def test_a_clients_certificate(self, connect, parameters, certificates):
        with Wire(parameters, tls=certificates.server(client=True)) as wire:
            given = {**wire.place, "sslmode": "require", "sslcert": certificates["client.crt"]}
            connect(**given, sslkey=certificates["client.key"])
            assert wire.secured == 1
            with pytest.raises(dbapi.OperationalError, match=r"sslcert '.*', sslkey '.*stranger"):
                connect(**given, sslkey=certificates["stranger.key"])
            with pytest.raises(dbapi.OperationalError, match=r"sslkey '/nowhere'"):
                connect(**given, sslkey="/nowhere")

    @pytest.mark.parametrize("given", [(), ("sslcert",), ("sslcert", "sslkey")])
    def test_a_clients_certificate_in_the_home_directory(
        self, connect, parameters, certificates, tmp_path, given
    ):
        places = {"sslcert": certificates["client.crt"], "sslkey": certificates["client.key"]}
        (tmp_path / ".postgresql").mkdir()
        if "sslcert" not in given:
            shutil.copy(places["sslcert"], tmp_path / ".postgresql" / "postgresql.crt")
        if "sslkey" not in given:
            shutil.copy(places["sslkey"], tmp_path / ".postgresql" / "postgresql.key")
        with Wire(parameters, tls=certificates.server(client=True)) as wire:
            connect(**wire.place, sslmode="require", **{name: places[name] for name in given})
            assert wire.secured == 1

    def test_a_context(self, connect, tls, wire, certificates):
        context = ssl.create_default_context(cafile=certificates["authority.crt"])
        context.verify_flags = ssl.VERIFY_DEFAULT
        connect(host="localhost", port=tls.port, ssl_context=context)
        assert tls.secured == 1
        with pytest.raises(dbapi.OperationalError, match="does not support SSL"):
            connect(**wire.place, ssl_context=context)

    def test_a_context_in_djangos_settings(self, make, tls, certificates):
        context = ssl.create_default_context(cafile=certificates["authority.crt"])
        context.verify_flags = ssl.VERIFY_DEFAULT
        wrapper = make(HOST="localhost", PORT=str(tls.port), OPTIONS={"ssl_context": context})
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert tls.secured == 1

    def test_pg8000s_words(self, connect, tls, wire):
        connect(**tls.place, ssl_context=True)
        assert tls.secured == 1
        with pytest.raises(dbapi.OperationalError, match="does not support SSL"):
            connect(**wire.place, ssl_context=True)
        connect(**tls.place, ssl_context=False)
        assert tls.secured == 1

    def test_on_a_unix_socket_there_is_none(self, connect, parameters):
        if not parameters["host"].startswith("/"):
            pytest.skip("the server has no Unix socket")
        connect(sslmode="verify-full")

    def test_all_that_is_done_with_it(self, connect, tls, admin):
        """What does not wait is other than that of plain sockets."""
        import io
        import select

        raw = connect(**tls.place, sslmode="require")
        assert raw.cursor().execute("SELECT repeat('x', 3000000), %s", ["y" * 3_000_000]).fetchall()
        raw.run("LISTEN here")
        raw.poll()
        admin.run("NOTIFY here, 'now'")
        while not raw.notifies:
            select.select([raw], [], [], 60)
            raw.poll()
        assert raw.notifies.popleft().payload == "now"
        raw.run("CREATE TEMP TABLE t (line text)")
        raw.cursor().copy_expert("COPY t FROM STDIN", io.StringIO(f"{'x' * 99}\n" * 50_000))
        assert raw.run("SELECT count(*), max(length(line)) FROM t") == [(50_000, 99)]


class TestFailover:
    def test_the_first_that_is_there(self, connect, wire, refusing):
        raw = connect(host="127.0.0.1,127.0.0.1", port=f"{refusing},{wire.port}")
        assert raw.run("SELECT 1") == [(1,)]

    def test_one_port_for_all(self, connect, wire, tmp_path):
        raw = connect(host=f"{tmp_path},127.0.0.1", port=wire.port)
        assert raw.run("SELECT 1") == [(1,)]

    def test_none_is_there(self, connect, refusing, tmp_path):
        with pytest.raises(dbapi.OperationalError) as caught:
            connect(host=f"127.0.0.1,{tmp_path}", port=refusing)
        one, other = str(caught.value).split("\n")
        assert f'at "127.0.0.1", port {refusing} failed' in one
        assert f'on socket "{tmp_path}/.s.PGSQL.{refusing}" failed' in other

    def test_who_refuses_is_the_last(self, connect, wire, parameters):
        with Wire(parameters) as other, pytest.raises(dbapi.OperationalError, match="relet_nobody"):
            ports = f"{wire.port},{other.port}"
            connect(host="127.0.0.1,127.0.0.1", port=ports, user="relet_nobody")
        assert not other.sessions

    @pytest.mark.parametrize(
        ("attributes", "primary"),
        [
            ("any", True),
            ("primary", True),
            ("read-write", True),
            ("standby", False),
            ("read-only", False),
            ("prefer-standby", False),
        ],
    )
    @pytest.mark.parametrize("first", ["primary", "standby"])
    def test_attributes(self, connect, parameters, attributes, primary, first):
        with (
            Wire(parameters, standby=first == "standby") as one,
            Wire(parameters, standby=first != "standby") as other,
        ):
            given = {"host": "127.0.0.1,127.0.0.1", "port": f"{one.port},{other.port}"}
            raw = connect(**given, target_session_attrs=attributes)
            one.forget()
            other.forget()
            raw.run("SELECT 'here'")
            (where,) = (wire for wire in (one, other) if wire.statements)
            expected = one if attributes == "any" else other
            if attributes != "any" and (first == "primary") is primary:
                expected = one
            assert where is expected

    @pytest.mark.parametrize("attributes", ["read-only", "standby"])
    def test_there_is_none(self, connect, wire, attributes):
        says = f"failed: the session is not {attributes}$"
        with pytest.raises(dbapi.OperationalError, match=says):
            connect(**wire.place, target_session_attrs=attributes)

    def test_none_is_preferred_only(self, connect, wire):
        assert connect(**wire.place, target_session_attrs="prefer-standby").run("SELECT 1")
        assert len(wire.sessions) == 2

    def test_read_only_by_a_setting(self, connect):
        options = "-c default_transaction_read_only=on"
        connect(options=options, target_session_attrs="read-only")
        with pytest.raises(dbapi.OperationalError, match="the session is not read-write"):
            connect(options=options, target_session_attrs="read-write")


WRONG = [
    ({"sslmod": "require"}, r"unknown 'sslmod' \(did you mean 'sslmode'\?\); known are"),
    ({"nonsense": None}, "unknown 'nonsense'"),
    ({"server_side_binding": True}, "'server_side_binding' cannot be set: simple queries"),
    ({"cursor_factory": object}, "'cursor_factory' cannot be set: all cursors of this driver"),
    ({"prepare_threshold": 0}, "'prepare_threshold' cannot be set: simple queries"),
    (
        {"client_encoding": "LATIN1"},
        "'client_encoding' is 'LATIN1'; this driver supports only 'UTF8'",
    ),
    ({"sslmode": "maybe"}, "'sslmode' is 'maybe'; it must be one of 'disable', 'allow'"),
    ({"target_session_attrs": "best"}, "'target_session_attrs' is 'best'; it must be one of 'any'"),
    ({"connect_timeout": "soon"}, "'connect_timeout' is 'soon'; it must be a whole number"),
    ({"keepalives_idle": 1.5}, "'keepalives_idle' is 1.5; it must be a whole number"),
    ({"timeout": "5"}, "'timeout' is '5'; it must be a positive number of seconds"),
    ({"timeout": 0}, "'timeout' is 0; it must be a positive number of seconds"),
    ({"ssl_context": "yes"}, "'ssl_context' is 'yes'; it must be an ssl.SSLContext"),
    ({"ssl_context": True, "sslmode": "require"}, "'ssl_context' and 'sslmode' exclude each other"),
    (
        {"hostaddr": "127.0.0.1,127.0.0.2", "host": "a"},
        "'host' names 1 hosts but 'hostaddr' 2",
    ),
    ({"gssencmode": "require"}, "'gssencmode' is 'require'; it must be one of 'prefer', 'disable'"),
    ({"connect": 7}, "'connect' is 7; it must be a callable"),
]


class TestChecks:
    @pytest.mark.parametrize(("given", "says"), WRONG)
    def test_what_is_wrong(self, parameters, given, says):
        with pytest.raises(ConfigurationError, match=says):
            dbapi.connect(**{**parameters, **given})

    @pytest.mark.parametrize(
        ("given", "says"),
        # Django has that encoding, whatever one says.
        [pair for pair in WRONG if not pair[0].keys() & {"hostaddr", "client_encoding"}],
    )
    def test_in_django(self, make, given, says):
        wrapper = make(OPTIONS=given)
        with pytest.raises(ImproperlyConfigured, match=says) as caught:
            wrapper.ensure_connection()
        assert str(caught.value).startswith("DATABASES['pg8000']['OPTIONS']: ")
        (message,) = run_checks(tags=["relet"])
        assert (message.id, message.msg) == ("relet.E005", str(caught.value))

    @pytest.mark.parametrize("port", ["many", "0", "70000", "1,2", "5432,", "-1"])
    def test_ports(self, parameters, port):
        with pytest.raises(ConfigurationError, match="'port' "):
            dbapi.connect(**{**parameters, "port": port})

    @pytest.mark.parametrize(
        "given",
        [
            {"server_side_binding": False, "prepare_threshold": None, "cursor_factory": None},
            {"client_encoding": "utf-8"},
            {"client_encoding": "UTF8"},
            {"sslmode": None, "connect_timeout": None, "timeout": None, "password": ""},
            {"gssencmode": "disable"},
        ],
    )
    def test_what_is_not(self, connect, given):
        assert connect(**given).run("SELECT 1") == [(1,)]

    def test_django_is_content(self, make):
        wrapper = make(OPTIONS={"server_side_binding": False, "application_name": "relet"})
        with wrapper.cursor() as cursor:
            cursor.execute("SHOW application_name")
            assert cursor.fetchall() == [("relet",)]
        assert run_checks(tags=["relet"]) == []

    def test_a_server_that_is_not_there(self, make, refusing):
        wrapper = make(HOST="127.0.0.1", PORT=str(refusing))
        says = rf"DATABASES\['pg8000'\]: .*port {refusing} failed"
        with pytest.raises(DjangosOperationalError, match=says):
            wrapper.ensure_connection()


class Connector:
    """Stands in for Google's: it has a socket of its own, on which pg8000 logs in."""

    def __init__(self, wire: Wire, parameters: dict) -> None:
        self.wire = wire
        self.user = parameters["user"]
        self.called: list[dict] = []
        self.kind = pg8000.dbapi.connect
        self.settings: dict = {}
        self.then = lambda connection: None

    def connect(self, **keywords):
        self.called.append(keywords)
        sock = socket.create_connection(("127.0.0.1", self.wire.port))
        connection = self.kind(
            self.user, database=keywords["database"], sock=sock, ssl_context=False, **self.settings
        )
        self.then(connection)
        return connection


def function(connector):
    return lambda **keywords: connector.connect(**keywords)


@pytest.fixture
def connector(wire, parameters):
    return Connector(wire, parameters)


@pytest.fixture
def asked(connect, connector):
    """Open a connection by the connector; which then does something to it."""

    def asked(then=lambda connection: None, **settings):
        connector.then, connector.settings = then, settings
        return connect(connect=connector.connect)

    return asked


class TestConnect:
    @pytest.mark.parametrize("kind", [pg8000.dbapi.connect, pg8000.native.Connection])
    def test_through_django(self, make, connector, wire, kind):
        connector.kind = kind
        wrapper = make(OPTIONS={"connect": function(connector), "instance": "p:r:i", "iam": True})
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT %s, current_database()::text", ["it's"])
            assert cursor.fetchone() == ("it's", wrapper.settings_dict["NAME"])
        assert wire.sent() == {"Q": len(wire.statements)}
        (called,) = connector.called
        assert (called["instance"], called["iam"]) == ("p:r:i", True)
        assert called["database"] == wrapper.settings_dict["NAME"]
        assert called["user"] == wrapper.settings_dict["USER"]
        others = {"instance", "iam", "database", "user", "password", "host", "port"}
        assert called.keys() <= others
        assert run_checks(tags=["relet"]) == []

    def test_a_method(self, make, connector):
        """Google's is one, of an object that has threads and locks."""
        with make(OPTIONS={"connect": connector.connect}).cursor() as cursor:
            cursor.execute("SELECT 1")
        assert len(connector.called) == 1

    @pytest.mark.parametrize("path", ["relet_connector.connect", "relet_connector:it.connect"])
    def test_a_dotted_path(self, make, connector, monkeypatch, path):
        module = ModuleType("relet_connector")
        module.connect, module.it = connector.connect, connector
        monkeypatch.setitem(sys.modules, "relet_connector", module)
        with make(OPTIONS={"connect": path}).cursor() as cursor:
            cursor.execute("SELECT 1")
        assert len(connector.called) == 1

    @pytest.mark.parametrize(
        "path", ["relet_nowhere.connect", "os.relet_nothing", "not a path", "relet_broken.connect"]
    )
    def test_a_path_to_nothing(self, connect, path, tmp_path, monkeypatch):
        (tmp_path / "relet_broken.py").write_text("connect = {}['X']\n")
        monkeypatch.syspath_prepend(tmp_path)
        says = f"'connect': {path!r} cannot be imported"
        with pytest.raises(ConfigurationError, match=re.escape(says)):
            connect(connect=path)

    def test_something_else_is_returned(self, connect):
        closed = []

        class Other:
            def close(self):
                closed.append(True)

        with pytest.raises(ConfigurationError, match=r"'connect' returned <.*Other.*pg8000's"):
            connect(connect=lambda **keywords: Other())
        assert closed
        with pytest.raises(ConfigurationError, match="'connect' returned None"):
            connect(connect=lambda **keywords: None)

    def test_it_is_closed(self, asked):
        with pytest.raises(dbapi.OperationalError, match="returned a connection that is closed"):
            asked(lambda connection: connection.close())

    @pytest.mark.parametrize(
        "error", [OSError("no route"), pg8000.dbapi.InterfaceError("no route")]
    )
    def test_it_fails(self, make, error):
        def fail(**keywords):
            raise error

        wrapper = make(OPTIONS={"connect": fail})
        with pytest.raises(DjangosOperationalError, match="'connect' failed: no route"):
            wrapper.ensure_connection()

    def test_the_server_refuses(self, connect, connector):
        connector.user = "relet_nobody"
        with pytest.raises(dbapi.OperationalError, match='FATAL:  role "relet_nobody" does not'):
            connect(connect=connector.connect)

    def test_its_own_errors_are_its_own(self, connect):
        def fail(**keywords):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            connect(connect=fail)

    def test_in_a_transaction(self, asked):
        raw = asked(lambda connection: connection.cursor().execute("CREATE TABLE relet_lost ()"))
        assert raw.transaction_status == TransactionStatus.IDLE
        assert raw.run("SELECT to_regclass('relet_lost')::text") == [(None,)]

    def test_in_a_transaction_that_has_failed(self, asked):
        def fail(connection):
            with pytest.raises(pg8000.dbapi.DatabaseError):
                connection.cursor().execute("SELECT 1/0")

        assert asked(fail).run("SELECT 1") == [(1,)]

    def test_in_another_encoding(self, asked):
        raw = asked(startup_params={"client_encoding": "LATIN1"})
        assert setting(raw, "client_encoding") == "UTF8"
        assert raw.cursor().execute("SELECT %s", ["\u20ac"]).fetchone() == ("\u20ac",)

    def test_in_another_encoding_in_a_transaction_that_has_failed(self, asked):
        def fail(connection):
            with pytest.raises(pg8000.dbapi.DatabaseError):
                connection.cursor().execute("SELECT 1/0")

        raw = asked(fail, startup_params={"client_encoding": "LATIN1"})
        assert raw.cursor().execute("SELECT %s", ["\u20ac"]).fetchone() == ("\u20ac",)

    def test_with_messages_that_pg8000_has_not_taken(self, asked, admin):
        def listen(connection):
            connection.autocommit = True
            connection.cursor().execute("LISTEN here")
            admin.run("NOTIFY here, 'early'")
            connection._sock.peek(1)  # reads as much as there is

        raw = asked(listen)
        assert raw.run("SELECT 1") == [(1,)]
        assert [notify.payload for notify in raw.notifies] == ["early"]

    def test_with_a_timeout(self, asked):
        raw = asked(lambda connection: connection._usock.settimeout(7))
        assert raw.wire.pg._usock.gettimeout() == 7

    def test_one_that_the_server_has_ended(self, asked, admin):
        def kill(connection):
            cursor = connection.cursor()
            cursor.execute("SELECT pg_backend_pid()")
            admin.run(f"SELECT pg_terminate_backend({cursor.fetchone()[0]}, 5000)")

        with pytest.raises(dbapi.OperationalError, match=r"terminating connection|lost"):
            asked(kill)

    def test_it_is_asked_for_each(self, make, connector, admin):
        wrapper = make(OPTIONS={"connect": function(connector)})
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            kill(admin, *cursor.fetchone())
        with pytest.raises(DjangosOperationalError), wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert len(connector.called) == 2
