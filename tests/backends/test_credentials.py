"""Rotating credentials: a password, and other parameters, that are asked for at each connection."""

import subprocess
import sys

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections
from django.db.backends.base.client import BaseDatabaseClient

from relet.backends import build
from relet.backends.checks import check_databases
from relet.backends.pools import pools

from ..support import engine
from ..support.driver import Django
from ..support.pools import all_pids, at_rest, backend_pid, stats
from ..support.sessions import kill, until_true
from ..support.threads import in_thread

ROLE = "relet_rotating"


class Passwords:
    """The password of a role, which changes, and a function that knows it."""

    def __init__(self, observer):
        self.observer, self.asked = observer, 0
        self.current = "first"

    def change(self, password):
        self.observer.execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'")
        self.current = password

    def __call__(self):
        self.asked += 1
        return self.current


@pytest.fixture
def passwords(observer):
    """A role that must give its password: the server's rules for all others come after."""
    (path,) = observer.execute("SHOW hba_file").fetchone()
    (rules,) = observer.execute("SELECT pg_read_file(%s)", [path]).fetchone()
    added = f"local all {ROLE} scram-sha-256\nhost all {ROLE} all scram-sha-256\n"
    observer.execute(f"CREATE ROLE {ROLE} LOGIN SUPERUSER PASSWORD 'first'")
    write(observer, path, added + rules)
    yield Passwords(observer)
    write(observer, path, rules)
    observer.execute(f"DROP ROLE {ROLE}")


def write(observer, path, text):
    literal = "'" + text.replace("'", "''") + "'"
    observer.execute(f"COPY (SELECT unnest(string_to_array({literal}, E'\\n'))) TO '{path}'")
    observer.execute("SELECT pg_reload_conf()")
    rules = "SELECT count(*) = %s FROM pg_hba_file_rules"
    count = sum(bool(line.strip()) and line.strip()[0] != "#" for line in text.splitlines())
    until_true(observer, rules, count)


class TestPassword:
    def test_is_asked_for_at_each_new_connection(self, make, observer, passwords):
        wrapper = make("rotating", size=2, USER=ROLE, PASSWORD=passwords)
        pids = set(all_pids(wrapper))
        passwords.change("second")
        for pid in pids:
            kill(observer, pid)
        with pytest.raises(OperationalError):
            backend_pid(wrapper)
        asked = passwords.asked
        assert not pids & set(all_pids(wrapper))
        assert passwords.asked > asked
        assert at_rest(wrapper)

    def test_without_a_pool(self, make, passwords):
        wrapper = make("rotating", pool=False, USER=ROLE, PASSWORD=passwords)
        for password in "second", "third":
            passwords.change(password)
            assert backend_pid(wrapper)
            wrapper.close()

    def test_one_that_is_no_longer_right(self, make, passwords):
        wrapper = make("rotating", USER=ROLE, PASSWORD=lambda: "wrong")
        with pytest.raises(OperationalError, match=r"(?s)'rotating'.*password"):
            backend_pid(wrapper)
        assert stats(wrapper).in_use == 0

    def test_of_another_type(self, make):
        wrapper = make("rotating", PASSWORD=lambda: b"bytes")
        with pytest.raises(ImproperlyConfigured, match=r"'rotating'.*PASSWORD.*bytes.*a str"):
            backend_pid(wrapper)

    def test_the_functions_own_errors_are_seen(self, make):
        def vault():
            raise LookupError("sealed")

        wrapper = make("rotating", PASSWORD=vault)
        with pytest.raises(LookupError, match="sealed"):
            backend_pid(wrapper)
        assert stats(wrapper).in_use == 0


def parameters(known):
    """What a settings file would name."""
    return {"application_name": f"asked by {known['dbname']}"}


class TestParameters:
    def name_of(self, wrapper):
        with wrapper.cursor() as cursor:
            cursor.execute("SHOW application_name")
            return cursor.fetchone()[0]

    @pytest.mark.parametrize("setting", [parameters, f"{__name__}:parameters"])
    def test_a_function_or_its_path(self, make, monkeypatch, setting):
        monkeypatch.setitem(sys.modules, __name__, sys.modules[parameters.__module__])
        wrapper = make("asking", OPTIONS={"connection_parameters": setting})
        assert self.name_of(wrapper) == f"asked by {wrapper.settings_dict['NAME']}"

    def test_at_each_new_connection(self, make, observer):
        count = iter(range(100))
        function = lambda known: {"application_name": str(next(count))}  # noqa: E731
        wrapper = make("asking", OPTIONS={"connection_parameters": function})
        first = self.name_of(wrapper)
        assert self.name_of(wrapper) == first
        kill(observer, backend_pid(wrapper))
        with pytest.raises(OperationalError):
            backend_pid(wrapper)
        assert self.name_of(wrapper) > first

    def test_with_a_password_that_is_asked_for(self, make, passwords):
        seen = []

        def function(known):
            seen.append(known["password"])
            return {"user": ROLE}

        wrapper = make("asking", PASSWORD=passwords, OPTIONS={"connection_parameters": function})
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT session_user")
            assert cursor.fetchone() == (ROLE,)
        assert set(seen) == {"first"}

    def test_what_is_no_dict(self, make):
        wrapper = make("asking", OPTIONS={"connection_parameters": lambda known: None})
        with pytest.raises(ImproperlyConfigured, match=r"'asking'.*a NoneType.*a dict"):
            backend_pid(wrapper)

    @pytest.mark.parametrize("name", ["dbname", "database"])
    def test_not_which_database(self, make, name):
        """In tests it is another than the function would know."""
        secret = {name: "production", "password": "a secret"}
        wrapper = make("asking", OPTIONS={"connection_parameters": lambda known: secret})
        with pytest.raises(ImproperlyConfigured, match=rf"'asking'.*'{name}'.*NAME") as caught:
            backend_pid(wrapper)
        assert "secret" not in str(caught.value)

    def test_a_module_that_uses_the_database_when_it_is_imported(self, make, tmp_path, monkeypatch):
        source = "from django.db import connection\n"
        source += "connection.cursor().execute('SELECT 1')\n"
        source += "def ask(known):\n    return {'application_name': 'imported'}\n"
        (tmp_path / "relet_asking.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        connections["default"].close()
        pools.close_alias("default")
        wrapper = make("asking", OPTIONS={"connection_parameters": "relet_asking.ask"})
        assert in_thread(lambda: self.name_of(wrapper.copy())) == "imported"

    @pytest.mark.parametrize(
        ("setting", "problem"),
        [
            ("nothing.there", "cannot be imported: No module named 'nothing'"),
            ("relet_broken.ask", "cannot be imported: KeyError('X')"),
            (3, "it is 3; it must be a function"),
        ],
    )
    def test_what_is_no_function(self, monkeypatch, tmp_path, setting, problem):
        (tmp_path / "relet_broken.py").write_text("ask = {}['X']\n")
        monkeypatch.syspath_prepend(tmp_path)
        settings = connections["default"].settings_dict
        options = {**settings["OPTIONS"], "connection_parameters": setting}
        monkeypatch.setitem(settings, "OPTIONS", options)
        (error,) = check_databases()
        assert (error.id, error.level) == ("relet.E006", checks.ERROR)
        assert "DATABASES['default']['OPTIONS']['connection_parameters']" in error.msg
        assert problem in error.msg


class Token(Django):
    """A backend that makes a token for each connection, as those for IAM do."""

    function = None

    def get_connection_params(self):
        return {**super().get_connection_params(), "user": ROLE, "password": Token.function()}


class TestBackends:
    @pytest.fixture(autouse=True)
    def token(self, passwords, monkeypatch):
        monkeypatch.setattr(Token, "function", passwords)
        return passwords

    @pytest.fixture(params=["below", "above"])
    def over(self, request, make):
        """Make a wrapper with the token: of the backend below relet, or of a class above."""

        def over(**settings):
            template = make("rotating", **settings)
            if request.param == "below":
                wrapper_class = build(engine.NAME, base=Token)
            else:
                wrapper_class = type("Above", (Token, type(template)), {})
            made.append(wrapper_class(template.settings_dict, "rotating"))
            return made[-1]

        made = []
        yield over
        for wrapper in made:
            wrapper.close()

    def test_are_asked_at_each_new_connection(self, over, observer, token):
        wrapper = over(size=2)
        pids = set(all_pids(wrapper))
        token.change("second")
        for pid in pids:
            kill(observer, pid)
        with pytest.raises(OperationalError):
            backend_pid(wrapper)
        asked = token.asked
        assert not pids & set(all_pids(wrapper))
        assert token.asked >= asked + 1
        assert at_rest(wrapper)

    def test_without_a_pool(self, over, token):
        wrapper = over(pool=False)
        for password in "second", "third":
            token.change(password)
            assert backend_pid(wrapper)
            wrapper.close()

    def test_a_connection_that_is_there_asks_for_nothing(self, over, token):
        wrapper = over()
        pid, asked = backend_pid(wrapper), token.asked
        wrapper.close()
        assert backend_pid(wrapper) == pid
        assert token.asked == asked

    def test_what_the_settings_ask_for_comes_last(self, over):
        options = {"connection_parameters": lambda known: {"application_name": "asked"}}
        with over(OPTIONS=options).cursor() as cursor:
            cursor.execute("SELECT session_user, current_setting('application_name')")
            assert cursor.fetchone() == (ROLE, "asked")

    def test_an_error_of_theirs_is_seen(self, over, token, monkeypatch):
        wrapper = over()
        assert backend_pid(wrapper)
        wrapper.close_pool()

        def sealed():
            raise LookupError("sealed")

        with monkeypatch.context() as patch, pytest.raises(LookupError, match="sealed"):
            patch.setattr(Token, "function", sealed)
            backend_pid(wrapper)
        assert stats(wrapper).in_use == 0


class TestBesideThePool:
    def test_databases_are_created(self, make, passwords):
        """As the test runner does it: Django connects to another database, beside the pool."""
        wrapper = make("rotating", USER=ROLE, PASSWORD=passwords)
        with wrapper._nodb_cursor() as cursor:
            cursor.execute("SELECT session_user")
            assert cursor.fetchone() == (ROLE,)

    def test_the_shell(self, make, monkeypatch):
        runs = []
        monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: runs.append((args, kwargs)))
        wrapper = make(
            "rotating",
            PASSWORD=lambda: "secret",
            OPTIONS={"connection_parameters": lambda known: {"user": "shell"}},
        )
        wrapper.client.runshell([])
        ((command,), options) = runs[0]
        assert command[:3] == ["psql", "-U", "shell"]
        assert options["env"]["PGPASSWORD"] == "secret"
        assert isinstance(wrapper.client, BaseDatabaseClient)
        assert wrapper.client.connection is wrapper
