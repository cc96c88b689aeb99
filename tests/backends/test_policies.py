"""Policies from settings, from code and for a block, and hold()."""

import asyncio
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType

import pytest
from asgiref.sync import sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import connection, connections, transaction
from testapp.models import Item

from relet import ReleasePolicy, hold, policies
from relet.backends import SessionStateError
from relet.backends.leases.policy_choice import PolicyChoice
from relet.core import ConfigurationError, Kind, RegistryError, hookimpl, registry

from ..support import engine
from ..support.driver import CONNECTION_LOST, execute
from ..support.pools import at_rest, backend_pid, stats
from ..support.sessions import kill, until_true
from .test_session_state import in_session, run

#: What tests/conftest.py has in DATABASES["default"].
SETTINGS = ReleasePolicy(check_idle=3600, catalogue_ttl=3600)


@pytest.fixture(autouse=True)
def restored():
    yield
    del policies["default"]
    assert not policies.overrides.get()


@dataclass(frozen=True)
class Gentle(ReleasePolicy):
    """A policy of one's own: nextval() is not worth a connection, LISTEN is refused."""

    def state_mode(self, kind):
        return {Kind.SEQUENCE: "ignore", Kind.CHANNEL: "error"}.get(kind, self.session_state)


GENTLE = Gentle(check_idle=3)


class NeedsArgument(ReleasePolicy):
    def __init__(self, tenant):
        super().__init__()


class Raises(ReleasePolicy):
    def __init__(self):
        raise KeyError("TENANT")


class Exits(ReleasePolicy):
    def __init__(self):
        sys.exit("no tenant")


class WrongValue(ReleasePolicy):
    def __init__(self):
        super().__init__(release="never")


class ClassAttribute(ReleasePolicy):
    release = "request"


#: Policy class that cannot be used -> what is said of it.
WRONG_CLASSES = {
    "NeedsArgument": r"NeedsArgument\(\) raised TypeError.*'tenant'.* dotted path of an instance",
    "Raises": r"Raises\(\) raised KeyError\('TENANT'\)",
    "Exits": r"Exits\(\) raised SystemExit\('no tenant'\)",
    "WrongValue": r"'relet_test_project.WrongValue': 'release' is 'never'; it can be",
    "ClassAttribute": r"ClassAttribute.release is 'request'.* ClassAttribute\(release='request'\)",
}


@pytest.fixture
def module(monkeypatch):
    """A module of a project, with policies in it."""
    module = ModuleType("relet_test_project")
    module.GENTLE, module.Gentle, module.other = GENTLE, Gentle, 17
    for cls in NeedsArgument, Raises, Exits, WrongValue, ClassAttribute:
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A module of a project whose import fails."""
    (tmp_path / "relet_broken.py").write_text("import os\nPOLICY = {}['X']\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def plugin():
    plugin = ModuleType("relet_test_plugin")
    plugin.relet_policies = hookimpl(lambda: {"gentle": GENTLE}, specname="relet_policies")
    registry.register(plugin)
    yield plugin
    registry.unregister(plugin)


class TestSettings:
    @pytest.mark.parametrize("policy", ["gentle", "{}.GENTLE", "{}:GENTLE", GENTLE])
    def test_a_policy_of_ones_own(self, make, plugin, module, policy):
        wrapper = make(policy=policy.format(module) if isinstance(policy, str) else policy)
        run(wrapper, "CREATE TEMP SEQUENCE relet_s")
        wrapper.close()
        with pytest.raises(SessionStateError):
            run(wrapper, "LISTEN relet_news")
        assert wrapper._runner.choice.policy is not None
        assert wrapper._runner.choice.policy.check_idle == 3
        run(wrapper, "SET lock_timeout = 5")
        assert stats(wrapper).in_use == 1

    def test_its_class_will_do(self, make, module):
        wrapper = make(policy=f"{module}.Gentle")
        backend_pid(wrapper)
        assert wrapper._runner.choice.policy == Gentle()

    @pytest.mark.parametrize(
        ("policy", "says"),
        [
            ("gentel", r"no policy 'gentel' is registered \(registered: 'gentle'\)"),
            ("cursor", r"Did you mean \{'release': 'cursor'\}"),
            ("no.such.module", "'no.such.module' cannot be imported: No module named 'no'"),
            ("relet_test_project.nothing", "'relet_test_project.nothing' cannot be imported"),
            (
                "relet_test_project.other",
                "'relet_test_project.other' is 17; it must be",
            ),
            *((f"relet_test_project.{name}", says) for name, says in WRONG_CLASSES.items()),
            ("relet_broken.POLICY", r"'relet_broken.POLICY' cannot be imported: KeyError\('X'\)"),
        ],
    )
    def test_one_that_cannot_be_used(self, make, plugin, module, broken, policy, says, monkeypatch):
        with pytest.raises(ImproperlyConfigured, match=says) as caught:
            backend_pid(make(policy=policy))
        assert "DATABASES['extra']['OPTIONS']['policy']" in str(caught.value)
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "policy", policy)
        assert [message.id for message in checks.run_checks(tags=["relet"])] == ["relet.E004"]

    def test_one_of_a_plugin_that_is_broken(self, make, monkeypatch):
        problems = ("plugin 'shop': policy 'other' must be a ReleasePolicy, not 5.",)
        monkeypatch.setattr(type(registry), "problems", lambda registry: problems)
        says = "no policy 'mine'.* A broken plugin may be the cause: plugin 'shop': policy 'other'"
        with pytest.raises(ImproperlyConfigured, match=says):
            backend_pid(make(policy="mine"))

    def test_a_wrong_value(self, make):
        with pytest.raises(ImproperlyConfigured, match="'pin', 'reset', 'error', 'ignore'"):
            backend_pid(make(policy={"session_state": "keep"}))

    def test_nothing_is_wrong(self, plugin, monkeypatch):
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "policy", "gentle")
        assert checks.run_checks(tags=["relet"]) == []


class TestOwnClasses:
    """Those from code, whose values no setting names."""

    @pytest.mark.parametrize("name", WRONG_CLASSES)
    def test_one_that_cannot_be_made(self, module, name):
        says = WRONG_CLASSES[name]
        with pytest.raises(ConfigurationError, match=rf"policies\['default'\]: .*{says}"):
            policies["default"] = f"{module}.{name}"

    @pytest.mark.parametrize("decorated", [False, True])
    @pytest.mark.parametrize("annotated", [False, True])
    def test_a_class_attribute_is_a_field_or_is_refused(self, annotated, decorated):
        body = {"release": "cursor", "check_idle": 2.0}
        if annotated:
            body["__annotations__"] = {"release": "ReleaseMode", "check_idle": "float"}
        cls = type("Own", (ReleasePolicy,), body)
        if decorated:
            cls = dataclass(frozen=True)(cls)
        if decorated and annotated:
            assert (cls().release, cls().check_idle) == ("cursor", 2.0)
            assert cls(release="request").release == "request"
            assert type("Below", (cls,), {})().release == "cursor"
            return
        with pytest.raises(ConfigurationError, match=r"Own.release is 'cursor'.* no effect"):
            cls()
        with pytest.raises(ConfigurationError, match=r"Below.release is 'cursor'"):
            type("Below", (cls,), {})()

    def test_a_class_attribute_that_is_passed_on(self):
        class Own(ReleasePolicy):
            release = "request"

            def __init__(self):
                super().__init__(release=self.release)

        assert Own().release == "request"


class TestPlugins:
    @pytest.mark.parametrize(
        ("brought", "says"),
        [
            ([GENTLE], "must return a mapping"),
            ({"a.b": GENTLE}, "'a.b' must be an identifier"),
            ({"gentle": {}}, "'gentle' must be a ReleasePolicy"),
        ],
    )
    def test_one_that_is_wrong(self, plugin, brought, says):
        plugin.relet_policies = hookimpl(lambda: brought, specname="relet_policies")
        registry.unregister(plugin)
        with pytest.raises(RegistryError, match=says) as caught:
            registry.register(plugin)
        assert "relet_test_plugin" in str(caught.value)

    def test_two_of_a_name(self, plugin):
        other = ModuleType("relet_other_plugin")
        other.relet_policies = plugin.relet_policies
        with pytest.raises(RegistryError, match="both register a policy 'gentle'"):
            registry.register(other)
        assert registry.policies()["gentle"] is GENTLE


class TestAssigned:
    def test_it_is_that_of_the_settings(self, db):
        assert policies["default"] == SETTINGS

    def test_the_next_statement_sees_it(self, db):
        backend_pid(db)
        policies["default"] = ReleasePolicy(release="request")
        assert policies["default"].release == "request"
        backend_pid(db)
        assert stats(db).in_use == 1
        db.close()
        del policies["default"]
        backend_pid(db)
        assert at_rest(db)

    def test_a_lease_in_flight_does_not(self, db):
        with transaction.atomic():
            backend_pid(db)
            policies["default"] = ReleasePolicy(release="request")
        assert at_rest(db)
        backend_pid(db)
        policies["default"] = ReleasePolicy()
        backend_pid(db)
        assert stats(db).in_use == 1
        db.close()
        backend_pid(db)
        assert at_rest(db)

    def test_every_thread_sees_it(self, db):
        policies["default"] = {"session_state": "error"}

        def other():
            try:
                run(connections["default"], "SET lock_timeout = 5")
            except SessionStateError as error:
                errors.append(error)
            finally:
                connections.close_all()

        errors = []
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(errors) == 1

    def test_check_idle_and_names(self, db, plugin):
        policies["default"] = "gentle"
        backend_pid(db)
        assert db._runner.choice.policy.check_idle == 3

    @pytest.mark.parametrize(
        ("alias", "policy", "says"),
        [
            (
                "defualt",
                ReleasePolicy(),
                "DATABASES has no alias 'defualt'; it has 'default'",
            ),
            ("default", {"release": "x"}, r"policies\['default'\]: 'release' is 'x'"),
            ("default", "nothing", r"policies\['default'\]: no policy 'nothing'"),
            ("default", None, r"policies\['default'\]: it is None"),
        ],
    )
    def test_wrong(self, db, alias, policy, says):
        with pytest.raises(ConfigurationError, match=says):
            policies[alias] = policy
        assert policies["default"] == SETTINGS

    def test_an_engine_that_is_not_relets(self, db):
        connections.settings["plain"] = {
            **connections.settings["default"],
            "ENGINE": engine.backend(),
        }
        try:
            for use in (
                lambda: policies["plain"],
                lambda: policies.override("plain").__enter__(),
                lambda: hold("plain").__enter__(),
            ):
                with pytest.raises(ConfigurationError, match=r"DATABASES\['plain'\]\['ENGINE'\]"):
                    use()
        finally:
            del connections.settings["plain"]
            del connections["plain"]


def test_fairness_is_the_pools(db):
    """That of the settings, then what code assigns; a block changes it for nobody."""
    backend_pid(db)
    pool = db._runner.find_pool().pool
    assert pool.fairness == ReleasePolicy().fairness
    policies["default"] = ReleasePolicy(fairness=0)
    backend_pid(db)
    assert pool.fairness == pool.fair_queue.fairness == 0
    with policies.override("default", fairness=1):
        backend_pid(db)
        assert pool.fairness == 0
    with pytest.raises(ConfigurationError, match="'fairness' is -1"):
        ReleasePolicy(fairness=-1)


class TestOverride:
    def test_it_is_for_the_block(self, db):
        with policies.override("default", release="request") as policy:
            assert policies["default"] is policy
            backend_pid(db)
            assert stats(db).in_use == 1
        # What the block kept, and nothing else keeps, goes back with it.
        assert at_rest(db)
        backend_pid(db)
        assert at_rest(db)

    def test_leases_look_for_blocks_only_while_there_is_one(self, db, monkeypatch):
        looks = []
        refresh = PolicyChoice.refresh

        def looked(choice, *args):
            looks.append(choice)
            refresh(choice, *args)

        monkeypatch.setattr(PolicyChoice, "refresh", looked)
        with policies.override("default", check_idle=7), policies.override("default"):
            backend_pid(db)
            backend_pid(db)
            assert len(looks) >= 2
        backend_pid(db)
        looks.clear()
        backend_pid(db)
        assert not looks

    def test_nested_and_left_by_an_error(self, db):
        with policies.override("default", release="cursor", check_idle=7):
            with pytest.raises(ZeroDivisionError), policies.override("default", check_idle=8):
                assert policies["default"] == replace(SETTINGS, release="cursor", check_idle=8)
                raise ZeroDivisionError
            assert policies["default"] == replace(SETTINGS, release="cursor", check_idle=7)
        assert policies["default"] == SETTINGS

    def test_of_two_aliases(self, db):
        connections.settings["other"] = connections.settings["default"]
        try:
            with policies.override("default", check_idle=7):
                with policies.override("other", check_idle=8):
                    assert policies["default"].check_idle == 7
                    assert policies["other"].check_idle == 8
                assert policies["other"].check_idle == SETTINGS.check_idle
        finally:
            del connections.settings["other"]
            del connections["other"]

    def test_a_decorated_function_in_two_threads(self, db):
        entered, leave = threading.Barrier(2), threading.Barrier(2)

        @policies.override("default", check_idle=7)
        def work():
            entered.wait(10)
            seen.append(policies["default"].check_idle)
            leave.wait(10)

        seen, errors = [], []

        def guarded():
            try:
                work()
                seen.append(policies["default"].check_idle)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=guarded) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(seen) == [7, 7, SETTINGS.check_idle, SETTINGS.check_idle]

    def test_what_is_refused_is_up_to_the_lease(self, db):
        with transaction.atomic():
            backend_pid(db)
            with policies.override("default", session_state="error"):
                run(db, "SET app.tenant = '1'")
            transaction.set_rollback(True)

    def test_leaving_it_is_nothing_to_another_lease(self, db):
        policies["default"] = ReleasePolicy(release="request")
        backend_pid(db)
        with policies.override("default", check_idle=7):
            policies["default"] = ReleasePolicy(release="statement")
        assert stats(db).in_use == 1

    def test_one_object_nested_in_itself(self, db):
        override = policies.override("default", ReleasePolicy(release="request"))
        with override, override:
            assert policies["default"].release == "request"
        assert policies["default"].release == "statement"

    def test_left_out_of_order(self, db):
        def generator(value):
            with policies.override("default", check_idle=value):
                yield policies["default"].check_idle
                yield policies["default"].check_idle

        assert list(zip(generator(7), generator(8), strict=False)) == [(7, 8), (8, 8)]
        first, second = policies.override("default"), policies.override("default", check_idle=8)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert policies["default"].check_idle == 8
        second.__exit__(None, None, None)
        assert policies["default"] == SETTINGS

    def test_one_object_in_two_threads(self, db):
        block, barrier, seen = policies.override("default", check_idle=7), threading.Barrier(2), []

        def work(first):
            with block:
                barrier.wait(10)
                seen.append(policies["default"].check_idle)
                if first:
                    barrier.wait(10)
            seen.append(policies["default"].check_idle)
            if not first:
                barrier.wait(10)

        threads = [threading.Thread(target=work, args=[first]) for first in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == [7, 7, SETTINGS.check_idle, SETTINGS.check_idle]

    def test_entered_and_left_in_other_threads_of_the_task(self, db):
        async def main():
            block = policies.override("default", check_idle=7)
            await sync_to_async(block.__enter__)()
            inside = policies["default"].check_idle
            await sync_to_async(block.__exit__)(None, None, None)
            return inside, policies["default"].check_idle

        assert asyncio.run(main()) == (7, SETTINGS.check_idle)

    def test_a_policy_with_an_init_of_its_own(self, db):
        class Own(ReleasePolicy):
            def __init__(self):
                super().__init__(release="request")

        with policies.override("default", Own()) as policy:
            assert policy.release == "request"
        with pytest.raises(ConfigurationError, match="Own cannot be changed"):
            policies.override("default", Own(), check_idle=7).__enter__()

    def test_a_state_mode_that_there_is_not(self, db):
        class Wrong(ReleasePolicy):
            def state_mode(self, kind):
                return "Pin"

        with (
            policies.override("default", Wrong()),
            pytest.raises(ConfigurationError, match=r"Wrong.state_mode\(.*\) returned 'Pin'"),
        ):
            run(db, "SET app.tenant = '1'")
        assert at_rest(db)

    def test_it_is_above_what_is_assigned(self, db):
        with policies.override("default", check_idle=7):
            policies["default"] = ReleasePolicy(check_idle=8)
            assert policies["default"].check_idle == 7
        assert policies["default"].check_idle == 8

    def test_a_lease_in_flight_keeps_its_own(self, db):
        with transaction.atomic():
            backend_pid(db)
            with policies.override("default", release="request"):
                backend_pid(db)
        assert at_rest(db)
        with policies.override("default", release="request"):
            backend_pid(db)
            with policies.override("default", release="statement"):
                backend_pid(db)
            assert stats(db).in_use == 1
        assert at_rest(db)

    def test_a_transaction_outlasts_it(self, db):
        atomic = transaction.atomic()
        with policies.override("default", release="request"):
            atomic.__enter__()
            backend_pid(db)
        assert stats(db).in_use == 1
        atomic.__exit__(None, None, None)
        assert at_rest(db)

    def test_session_state_outlasts_it(self, db):
        with policies.override("default", release="request"):
            run(db, "SET lock_timeout = 5")
        assert stats(db).in_use == 1

    def test_another_thread_does_not_see_it(self, db):
        seen = []
        with policies.override("default", release="request"):
            thread = threading.Thread(target=lambda: seen.append(policies["default"].release))
            thread.start()
            thread.join()
        assert seen == ["statement"]

    def test_another_task_does_not_see_it(self, db):
        async def overriding(entered, seen):
            with policies.override("default", check_idle=9):
                entered.set()
                await seen.wait()
                return policies["default"].check_idle

        async def main():
            entered, seen = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(overriding(entered, seen))
            await entered.wait()
            here = policies["default"].check_idle
            seen.set()
            return here, await task

        assert asyncio.run(main()) == (SETTINGS.check_idle, 9)

    def test_a_tasks_synchronous_code_sees_it(self, db):
        def query():
            backend_pid(connections["default"])
            return connections["default"]._runner.lease.connection is not None

        async def main():
            async with policies.override("default", release="request"):
                kept = await sync_to_async(query)()
            rest = await sync_to_async(lambda: at_rest(connections["default"]))()
            await sync_to_async(connections.close_all)()
            return kept, rest

        assert asyncio.run(main()) == (True, True)

    def test_decorators(self, db):
        @policies.override("default", release="request")
        def query(depth):
            """Doc."""
            assert policies["default"].release == "request"
            return depth and query(depth - 1)

        @policies.override("default", release="request")
        async def coroutine():
            await asyncio.sleep(0)
            return policies["default"].release

        assert query(2) == 0
        assert (query.__name__, query.__doc__) == ("query", "Doc.")
        assert asyncio.run(coroutine()) == "request"
        assert policies["default"].release == "statement"

    @pytest.mark.parametrize("block", [policies.override("default"), hold()])
    def test_generators_cannot_be_decorated(self, block):
        def generator():
            yield

        async def asynchronous():
            yield

        class Called:
            def __call__(self):
                yield

        class CalledAsynchronously:
            async def __call__(self):
                yield

        objects = Called(), CalledAsynchronously()
        for function in (generator, asynchronous, *objects, *map(partial, objects)):
            with pytest.raises(TypeError, match=r"is a generator.*Use a 'with' block inside it"):
                block(function)

    @pytest.mark.parametrize(
        ("arguments", "changes", "says"),
        [
            (("default",), {"releese": "cursor"}, r"'default', ...\): unknown 'releese'"),
            (("default",), {"release": "x"}, r"'default', ...\): 'release' is 'x'"),
            (("default", "cursor"), {}, "'cursor' is not a ReleasePolicy"),
            (("nothing",), {}, "DATABASES has no alias 'nothing'"),
        ],
    )
    def test_wrong(self, db, arguments, changes, says):
        with pytest.raises(ConfigurationError, match=says):
            policies.override(*arguments, **changes).__enter__()
        assert not policies.overrides.get()

    def test_a_decorator_without_an_alias(self):
        with pytest.raises(TypeError, match=r"Decorate with @policies.override\(\"default\""):
            policies.override(lambda: None)

    def test_going_back_to_the_settings_of_an_unknown_alias(self, db):
        with pytest.raises(ConfigurationError, match="no alias 'defalt'; it has 'default'"):
            del policies["defalt"]
        del policies["default"]  # although none was assigned


class TestHold:
    def test_one_connection_for_the_block(self, make, db):
        with hold("default") as held:
            assert held is connections["default"]
            # It is taken with the first statement.
            assert stats(db).in_use == 0
            pid = backend_pid(db)
            assert stats(db).in_use == 1
            with transaction.atomic():
                assert backend_pid(db) == pid
            assert stats(db).in_use == 1
        assert at_rest(db)

    def test_what_was_set_inside_is_undone(self, db):
        before = in_session(db)
        with hold():
            run(db, "SET app.tenant = '1'")
            run(db, "CREATE TEMP TABLE relet_t (a int)")
            run(db, "PREPARE relet_p AS SELECT 1")
            run(db, "LISTEN relet_news")
            assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
        assert at_rest(db)
        assert in_session(db) == before

    def test_also_what_functions_have_made(self, db, observer):
        observer.execute(
            "CREATE FUNCTION relet_f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM set_config('app.tenant', '1', false);"
            " PERFORM pg_advisory_lock(99); EXECUTE 'LISTEN relet_news';"
            " EXECUTE 'PREPARE relet_p AS SELECT 1'; END $$"
        )
        before = in_session(db)
        with hold():
            run(db, "SELECT relet_f()")
        assert at_rest(db)
        assert in_session(db) == before
        observer.execute("DROP FUNCTION relet_f()")

    def test_reentrant(self, db):
        block = hold()
        with block, hold(), block:
            run(db, "SET app.tenant = '1'")
        assert at_rest(db)
        with hold():
            with pytest.raises(ZeroDivisionError), hold():
                run(db, "SET app.tenant = '1'")
                raise ZeroDivisionError
            assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
        assert at_rest(db)

    def test_no_statement_no_connection(self, db):
        before = stats(db).checkouts
        with hold(), hold():
            pass
        assert stats(db).checkouts == before
        assert db._runner.lease.session is None

    def test_nothing_is_logged_and_nothing_refused(self, db, caplog):
        policies["default"] = ReleasePolicy(session_state="error")
        with hold():
            run(db, "SET app.tenant = '1'")
        assert caplog.records == []
        with pytest.raises(SessionStateError):
            run(db, "SET app.tenant = '1'")

    def test_a_transaction_outlasts_it(self, db):
        before = in_session(db)
        with transaction.atomic():
            with hold():
                run(db, "SET app.tenant = '1'")
            assert stats(db).in_use == 1
            assert backend_pid(db) == before[0]
        assert at_rest(db)
        assert in_session(db) == before

    def test_session_state_from_before_outlasts_it(self, db):
        before = in_session(db)
        run(db, "SET app.tenant = '1'")
        with hold():
            run(db, "SET app.reader = '2'")
        assert run(db, "SELECT current_setting('app.tenant')") == [("1",)]
        assert stats(db).in_use == 1
        db.close()
        assert in_session(db) == before

    def test_close_inside_of_it(self, db):
        before = in_session(db)
        with hold():
            run(db, "SET app.tenant = '1'")
            db.close()
            assert at_rest(db)
            assert in_session(db) == before
            pid = backend_pid(db)
            # It goes on, with the next connection.
            assert stats(db).in_use == 1
            assert backend_pid(db) == pid
        assert at_rest(db)

    def test_a_connection_that_is_lost_is_not_replaced(self, db, observer):
        with hold():
            kill(observer, backend_pid(db))
            for _ in range(2):
                with pytest.raises(CONNECTION_LOST):
                    backend_pid(db)
        assert at_rest(db)
        assert backend_pid(db)

    def test_server_side_cursors_inside(self, db):
        Item.objects.bulk_create(Item(name=str(n)) for n in range(5))
        with hold():
            for _ in Item.objects.iterator(chunk_size=2):
                run(db, "SET app.tenant = '1'")
        assert at_rest(db)
        Item.objects.all().delete()

    def test_a_cursor_that_outlives_it(self, db):
        iterator = iter(Item.objects.iterator(chunk_size=2))
        Item.objects.bulk_create(Item(name=str(n)) for n in range(5))
        with hold():
            next(iterator)
            run(db, "SET app.tenant = '1'")
        assert stats(db).in_use == 1
        assert len(list(iterator)) == 4
        assert at_rest(db)
        assert run(db, "SELECT current_setting('app.tenant', true)") != [("1",)]
        Item.objects.all().delete()

    def test_decorators(self, db):
        @hold("default")
        def job():
            pid = backend_pid(connection)
            run(connection, "SET app.tenant = '1'")
            return backend_pid(connection) == pid

        assert job()
        assert at_rest(db)

    def test_asynchronous(self, db):
        @hold()
        async def job():
            pid = await sync_to_async(lambda: backend_pid(connections["default"]))()
            await sync_to_async(lambda: run(connections["default"], "SET app.tenant = '1'"))()
            return pid == await sync_to_async(lambda: backend_pid(connections["default"]))()

        async def main():
            same = await job()
            rest = await sync_to_async(lambda: at_rest(connections["default"]))()
            with pytest.raises(SynchronousOnlyOperation, match="async with"), hold():
                pass
            await sync_to_async(connections.close_all)()
            return same, rest

        assert asyncio.run(main()) == (True, True)

    @pytest.mark.parametrize("pool", [None, False])
    @pytest.mark.parametrize("release", ["cursor", "request"])
    def test_what_was_set_is_undone_where_the_lease_goes_on(self, make, observer, release, pool):
        wrapper = make(policy={"release": release}, pool=pool)
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 1")
            wrapper.hold()
            cursor.execute("SET app.tenant = '1'")
            cursor.execute("SELECT pg_advisory_lock(77)")
            wrapper.release_hold()
            cursor.execute("SELECT current_setting('app.tenant', true)")
            assert cursor.fetchone() in [("",), (None,)]
            # Without a pool it goes with its connection, whose server process may take its time.
            until_true(observer, "SELECT NOT EXISTS (SELECT 1 FROM pg_locks WHERE objid = 77)")
            assert wrapper._runner.lease.session is None

    @pytest.mark.parametrize("release", ["statement", "cursor", "request"])
    def test_a_cursor_that_is_open_outlasts_it(self, make, release):
        wrapper = make(policy={"release": release})
        wrapper.hold()
        cursor = wrapper.chunked_cursor()
        cursor.execute("SELECT generate_series(1, 10)")
        assert cursor.fetchmany(2) == [(1,), (2,)]
        wrapper.release_hold()
        assert cursor.fetchmany(2) == [(3,), (4,)]
        cursor.close()
        wrapper.close()
        assert at_rest(wrapper)

    def test_the_drivers_connection_in_use_outlasts_it(self, make):
        wrapper = make(policy={"release": "request"})
        with wrapper.cursor() as cursor:
            raw = cursor.connection
            wrapper.hold()
            execute(raw, "SET app.tenant = '1'")
            wrapper.release_hold()
            assert execute(raw, "SELECT current_setting('app.tenant')").fetchone() == ("1",)
        wrapper.close()
        assert run(wrapper, "SELECT current_setting('app.tenant', true)") == [("",)]

    def test_it_leaves_manual_transactions_alone(self, make):
        wrapper = make(policy={"release": "request"}, AUTOCOMMIT=False)
        wrapper.hold()
        run(wrapper, "SET app.tenant = '1'")
        wrapper.commit()
        wrapper.release_hold()
        run(wrapper, "INSERT INTO testapp_item (name) VALUES ('never')")
        wrapper.rollback()
        assert run(wrapper, "SELECT count(*) FROM testapp_item WHERE name = 'never'") == [(0,)]
        wrapper.rollback()
        wrapper.close()
        assert run(wrapper, "SELECT current_setting('app.tenant', true)") != [("1",)]

    def test_one_object_in_two_threads(self, db):
        block, barrier, kept = hold(), threading.Barrier(2), []

        def work(first):
            wrapper = connections["default"]
            with block:
                barrier.wait(10)
                if not first:
                    barrier.wait(10)  # the other has left
                kept.append(wrapper._runner.lease.session.holds)
            kept.append(wrapper._runner.lease.session)
            if first:
                barrier.wait(10)
            wrapper.close()

        threads = [threading.Thread(target=work, args=[first]) for first in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(kept, key=str) == [1, 1, None, None]

    @pytest.mark.parametrize("turns", range(6))
    def test_a_task_that_is_cancelled(self, db, turns):
        """At any moment: nothing is held when it is over."""

        async def job():
            async with hold():
                await sync_to_async(lambda: run(connections["default"], "SELECT 1"))()
                await asyncio.sleep(0)

        async def main():
            task = asyncio.create_task(job())
            for _ in range(turns * 3):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            session, rest = await sync_to_async(
                lambda: (
                    connections["default"]._runner.lease.session,
                    at_rest(connections["default"]),
                )
            )()
            await sync_to_async(connections.close_all)()
            return session, rest

        assert asyncio.run(main()) == (None, True)

    @pytest.mark.parametrize("entering", [True, False])
    def test_a_task_that_is_cancelled_while_its_thread_is_busy(self, db, entering):
        async def job(inside):
            async with hold():
                inside.set()
                await sync_to_async(lambda: run(connections["default"], "SET app.tenant = '1'"))()

        async def main():
            inside, busy, go_on = asyncio.Event(), threading.Event(), threading.Event()

            def wait():
                busy.set()
                go_on.wait(10)

            blocker = asyncio.create_task(sync_to_async(wait)()) if entering else None
            if entering:
                await asyncio.to_thread(busy.wait, 10)
            task = asyncio.create_task(job(inside))
            if entering:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            else:
                await inside.wait()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # once more, while it waits for its end
            go_on.set()
            with suppress(asyncio.CancelledError):
                await task
            if blocker is not None:
                await blocker
            session = await sync_to_async(lambda: connections["default"]._runner.lease.session)()
            await sync_to_async(connections.close_all)()
            return session is None or session.holds == 0

        assert asyncio.run(main())

    def test_objects_that_are_called_asynchronously(self, db):
        class Job:
            async def __call__(self):
                pid = await sync_to_async(lambda: backend_pid(connections["default"]))()
                return pid == await sync_to_async(lambda: backend_pid(connections["default"]))()

        async def main():
            same = await hold()(Job())()
            await sync_to_async(connections.close_all)()
            return same

        assert asyncio.run(main())

    def test_what_cannot_be_decorated(self, db):
        methods = [kind(backend_pid) for kind in (staticmethod, classmethod, property)]
        for wrong in (5, ReleasePolicy, *methods):
            with pytest.raises(TypeError, match=r"is not a function.*below @staticmethod, @class"):
                hold()(wrong)
        with pytest.raises(TypeError, match=r"Decorate with @hold\(\)"):
            hold(lambda: None)

    def test_an_unknown_alias(self, db):
        with pytest.raises(ConfigurationError, match="DATABASES has no alias 'nothing'"):
            hold("nothing").__enter__()

    def test_other_threads_are_not_held(self, db):
        def other():
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
            seen.append(connections["default"]._runner.lease.connection)

        seen = []
        with hold():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert seen == [None]
