"""The registry: built-ins by the front door, and wrong plugins named."""

import os
import re
import subprocess
import sys
from pkgutil import iter_modules

import pytest

from relet.core import (
    AdapterSpec,
    MissingDependency,
    RegistryError,
    ReleasePolicy,
    UnknownAdapter,
    discovery,
    hookimpl,
)
from relet.core.registry import Registry


class PsycopgAdapter:
    """Stands for an adapter that is imported."""


def plugin(*specs):
    class Plugin:
        @hookimpl
        def relet_adapters(self):
            return list(specs)

    return Plugin()


@pytest.fixture
def registry():
    return Registry()


def test_built_ins_come_through_the_entry_point(registry):
    assert "psycopg" in registry.specs()
    assert registry.load("psycopg").__name__ == "PsycopgAdapter"


def test_unknown(registry):
    with pytest.raises(UnknownAdapter, match=r"Registered adapters: .*\bpsycopg\b") as caught:
        registry.spec("nope")
    assert caught.value.name == "nope"


def test_a_strangers_adapter(registry):
    mine = plugin(AdapterSpec("mine", "relet.adapters.psycopg:PsycopgAdapter"))
    registry.register(mine)
    assert registry.load("mine").__name__ == "PsycopgAdapter"
    registry.unregister(mine)
    with pytest.raises(UnknownAdapter):
        registry.spec("mine")


@pytest.mark.parametrize("module", ["no_such_module", "no_such.sub"])
def test_missing_dependency(registry, module):
    registry.register(plugin(AdapterSpec("mine", "x:Y", (module,), "mine[pool]")))
    with pytest.raises(MissingDependency, match=rf"{module}.*pip install 'mine\[pool\]'"):
        registry.load("mine")


GOOD = """
from relet.core import AdapterSpec, hookimpl

@hookimpl
def relet_adapters():
    return [AdapterSpec("good", "relet.adapters.psycopg:PsycopgAdapter")]
"""
BARE = """
from relet.core import PoolAdapter

class Bare(PoolAdapter):
    def discard(self, connection):
        pass
"""


def hook(signature, body):
    return f"from relet.core import hookimpl\n@hookimpl\ndef {signature}:\n    {body}"


BROKEN = {
    "import error": ("import no_such_module", r"cannot be loaded: ModuleNotFoundError\("),
    "syntax error": ("def relet_adapters(:", r"cannot be loaded: SyntaxError\("),
    "exit on import": (
        "raise SystemExit('no licence')",
        r"cannot be loaded: SystemExit\('no licence'\)",
    ),
    "exit in a hook": (
        hook("relet_adapters()", "raise SystemExit(1)"),
        r"relet_adapters\(\) raised SystemExit\(1\)",
    ),
    "wrong hook signature": (hook("relet_adapters(everything)", "return []"), "everything"),
    "misspelt hook": (hook("relet_adaptors()", "return []"), "unknown hook 'relet_adaptors'"),
    "hook that raises": (
        hook("relet_adapters()", "return 1 / 0"),
        r"relet_adapters\(\) raised ZeroDivisionError",
    ),
    "forgotten mark": (
        GOOD.replace("@hookimpl", "").replace("good", "other"),
        r"cannot be loaded: relet_adapters\(\) is not marked. .*@hookimpl above it. Fix",
    ),
    "no hook": ("", r"cannot be loaded: .* has no hook"),
    "no specs": (
        hook("relet_adapters()", "return None"),
        "must return a list of AdapterSpec objects, not None",
    ),
    "duplicate name": (
        GOOD.replace('"good"', '"psycopg"'),
        "plugin 'builtin' of 'relet' both register an adapter 'psycopg'. The latter is used",
    ),
    "wrong policy": (
        hook("relet_policies()", "return {'x': 1}"),
        "policy 'x' must be a ReleasePolicy",
    ),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module, which is a plugin."""
    monkeypatch.syspath_prepend(tmp_path)
    installed = []

    def install(distribution, module, source, *further_names):
        metadata = tmp_path / f"{distribution}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        names = "".join(f"{name} = {module}\n" for name in (module, *further_names))
        (metadata / "entry_points.txt").write_text(f"[relet]\n{names}")
        (tmp_path / f"{module}.py").write_text(source)
        installed.append(module)

    yield install
    for module in installed:
        sys.modules.pop(module, None)


@pytest.mark.parametrize(("source", "says"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_plugin_is_named_and_breaks_no_other(registry, install, caplog, source, says):
    install("another", "good_plugin", GOOD)
    install("guilty", "broken_plugin", source)
    assert {"dj_db_conn_pool", "good", "psycopg", "sqlalchemy"} <= registry.specs().keys()
    assert registry.load("psycopg").__module__ == "relet.adapters.psycopg.adapter"
    assert registry.load("good")
    (problem,) = registry.problems()
    assert re.search(says, problem)
    assert "plugin 'broken_plugin' of 'guilty'" in problem
    assert problem in caplog.text
    with pytest.raises(UnknownAdapter) as caught:
        registry.spec("broken")
    assert problem in str(caught.value)


def test_two_strangers_of_a_name(registry, install):
    install("zebra", "zebra_plugin", GOOD)
    install("aardvark", "aardvark_plugin", GOOD)
    (problem,) = registry.problems()
    assert "plugin 'zebra_plugin' of 'zebra' and plugin 'aardvark_plugin' of 'aardvark'" in problem
    assert registry.load("good")


def test_a_plugin_with_two_entry_points(registry, install):
    install("twice", "good_plugin", GOOD, "older_name")
    assert {"good", "psycopg"} <= registry.specs().keys()
    (problem,) = registry.problems()
    assert problem.startswith("plugin 'older_name' of 'twice' (good_plugin) cannot be loaded: ")
    assert "is registered already by plugin 'good_plugin' of 'twice'" in problem


def test_a_plugin_that_is_registered_twice(registry, install):
    import relet.adapters

    with pytest.raises(RegistryError, match="registered already by plugin 'builtin' of 'relet'"):
        registry.register(relet.adapters)
    mine = plugin(AdapterSpec("mine", "x:Y"))
    registry.register(mine, "first")
    with pytest.raises(RegistryError, match="registered already by plugin 'first'"):
        registry.register(mine, "second")
    with pytest.raises(RegistryError, match="the plugin name 'first' is registered already by"):
        registry.register(plugin(AdapterSpec("other", "x:Y")), "first")
    assert "mine" in registry.specs()
    registry.unregister(mine)
    assert "mine" not in registry.specs()


def test_a_signal_handlers_exit_is_not_taken_for_the_plugins(registry, install, monkeypatch):
    """A handler that calls sys.exit() may interrupt the import of a plugin. It does so once."""
    install("good", "good_plugin", GOOD)
    exits = [SystemExit(143)]

    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "good_plugin" and exits:
                raise exits.pop()

    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit):
        registry.specs()
    assert "good" in registry.specs()
    assert registry.problems() == ()


def test_an_alias(registry):
    registry.register(plugin(AdapterSpec("mine", "no.such:Adapter", aliases=("other", "third"))))
    assert registry.spec("other") is registry.spec("third") is registry.spec("mine")
    assert "other" not in registry.specs()
    with pytest.raises(RegistryError, match=r"adapter 'mine': no\.such cannot be imported"):
        registry.load("other")
    with pytest.raises(
        UnknownAdapter, match=r"Registered adapters: .*\bother\b.*Did you mean 'third'"
    ):
        registry.spec("thirt")


@pytest.mark.parametrize(("alias", "taken"), [("psycopg", "psycopg"), ("postgresql", "psycopg")])
def test_an_alias_that_is_taken(registry, alias, taken):
    says = f"adapter 'zebra' has the alias {alias!r}, which already belongs to adapter {taken!r}"
    with pytest.raises(RegistryError, match=says):
        registry.register(plugin(AdapterSpec("zebra", "no.such:Adapter", aliases=(alias,))))
    assert registry.spec(alias).name == taken


def test_an_alias_that_is_no_identifier(registry):
    with pytest.raises(RegistryError, match=r"'aliases' is \('a-b',\); it must be a tuple.* ident"):
        registry.register(plugin(AdapterSpec("mine", "no.such:Adapter", aliases=("a-b",))))


def test_an_adapter_that_lacks_methods(registry, install):
    source = GOOD.replace("relet.adapters.psycopg:PsycopgAdapter", "broken_plugin:Bare")
    install("guilty", "broken_plugin", f"{source}\n{BARE}")
    with pytest.raises(RegistryError) as caught:
        registry.load("good")
    text = str(caught.value)
    assert text.startswith("plugin 'broken_plugin' of 'guilty': adapter 'good': ")
    assert "must define check_options, checkin, checkout, close, " in text
    assert text.endswith("stats, transaction_status.")
    assert registry.load("psycopg")


def test_what_an_adapter_requires_may_be_broken_itself(registry, install, tmp_path):
    source = GOOD.replace('Adapter")', 'Adapter", ("broken_package.module",))')
    install("guilty", "broken_plugin", source)
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("raise RuntimeError")
    assert registry.missing(registry.spec("good")) == ["broken_package.module"]


def test_an_adapter_whose_module_cannot_be_imported(registry, install, tmp_path):
    source = GOOD.replace("relet.adapters.psycopg:PsycopgAdapter", "broken_module:Bare")
    install("guilty", "broken_plugin", source)
    for broken in "import no_such_module", "object().no_such_attribute":
        (tmp_path / "broken_module.py").write_text(broken)
        with pytest.raises(RegistryError, match=r"of 'guilty': .*broken_module cannot be imported"):
            registry.load("good")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("psycopg", "must return a list of AdapterSpec objects, not 'psycopg'"),
        (AdapterSpec(None, "x:Y"), "adapter None: 'name' is None; it must be an identifier"),
        (AdapterSpec(["mine"], "x:Y"), r"'name' is \['mine'\]; it must be an identifier"),
        (AdapterSpec("mine", PsycopgAdapter), "must be the text '.*test_registry:PsycopgAdapter'"),
        (AdapterSpec("mine", None), "'adapter' is None; it must be the text 'package.module:"),
        (AdapterSpec("mine", "x:Y", (3,)), r"'requires' is \(3,\); it must be a tuple of 'module'"),
        (AdapterSpec("mine", "x:Y", ((),)), r"'requires' is \(\(\),\); it must be a tuple"),
        (AdapterSpec("mine", "x:Y", (("a", 3),)), "'requires' is .*; it must be a tuple"),
        (AdapterSpec("mine", "x:Y", ["a"]), "'requires' is .*; it must be a tuple"),
        (AdapterSpec("mine", "x:Y", install=("a", "b")), "'install' is .*; it must be one text"),
        (AdapterSpec("mine", "x:Y", backend=None), "'backend' is None; it must be the dotted path"),
        (AdapterSpec("mine", "x:Y", backend=""), "'backend' is ''; it must be the dotted path"),
        (
            AdapterSpec("mine", "x:Y", aliases=("mine",)),
            "must be names other than the adapter's",
        ),
        (AdapterSpec("mine", "x:Y", aliases=("a", "a")), "it must be names other than.* once"),
        (AdapterSpec("mine", "x:Y", aliases=(3,)), "it must be a tuple of names.* identifier"),
        (AdapterSpec("not a name", "x:Y"), "must be an identifier"),
        (AdapterSpec("class", "x:Y"), "must be an identifier"),
        (AdapterSpec("mine", "x:Y", "x"), "'requires' is 'x'; it must be a tuple of 'module'"),
        (
            AdapterSpec("mine", "x.Y"),
            "'adapter' is 'x.Y'; it must be the text 'package.module:C",
        ),
        (
            AdapterSpec("mine", "x:Y", aliases="ours"),
            "'aliases' is 'ours'; it must be a tuple of",
        ),
        (AdapterSpec("embedded", "x:Y"), r"relet\.backends\.embedded is a module of relet's own"),
        (AdapterSpec("mine", "x:Y", aliases=("typing",)), r"relet\.backends\.typing is a module"),
        (AdapterSpec("psycopg", "x:Y"), "both register an adapter 'psycopg'"),
    ],
)
def test_a_wrong_plugin_is_named_and_stays_out(registry, spec, says):
    wrong = plugin(spec)
    with pytest.raises(RegistryError, match=says) as caught:
        registry.register(wrong, "guilty")
    assert "'guilty'" in str(caught.value)
    assert registry.load("psycopg")


def test_a_list_is_to_be_returned(registry):
    class Plugin:
        @hookimpl
        def relet_adapters(self):
            return AdapterSpec("mine", "x:Y")

    with pytest.raises(RegistryError, match="must return a list of AdapterSpec objects"):
        registry.register(Plugin(), "guilty")


@pytest.mark.parametrize("hook", ["relet_adapters", "relet_policies"])
@pytest.mark.parametrize("other", ["relet_adapters", "relet_policies", None])
def test_a_hook_that_is_not_marked(registry, hook, other):
    functions = {hook: lambda self: []}
    if other not in (hook, None):
        functions[other] = hookimpl(lambda self: {}, specname=other)
    guilty = type("Guilty", (), functions)()
    with pytest.raises(RegistryError, match=rf"plugin 'guilty': {hook}\(\) is not .*@hookimpl"):
        registry.register(guilty, "guilty")
    assert registry.load("psycopg")


@pytest.mark.parametrize("guilty", ["relet_stack", 3, None, object(), re])
def test_what_has_no_hook(registry, guilty):
    with pytest.raises(RegistryError, match=r"plugin 'guilty': .* has no hook.* with @hookimpl"):
        registry.register(guilty, "guilty")
    assert registry.load("psycopg")


def test_two_adapters_of_a_name_from_one_plugin(registry):
    wrong = plugin(AdapterSpec("mine", "x:Y"), AdapterSpec("mine", "x:Z"))
    with pytest.raises(RegistryError, match="returns two adapters named 'mine'"):
        registry.register(wrong, "guilty")


def test_no_adapter_can_have_the_name_of_a_module(registry):
    """All modules beside the built-in engines, which are files, too."""
    import relet.backends

    specs = registry.specs()
    engines = {*specs, *(alias for spec in specs.values() for alias in spec.aliases)}
    modules = {module.name for module in iter_modules(relet.backends.__path__)}
    assert modules - engines == set(discovery._MODULES)


def test_a_misspelt_hook_is_not_silent(registry):
    class Misspelt:
        @hookimpl
        def relet_adaptors(self):
            return []

    with pytest.raises(RegistryError, match="relet_adaptors"):
        registry.register(Misspelt(), "guilty")
    assert registry.load("psycopg")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("relet.adapters.psycopg:Nothing", "does not exist"),
        ("relet.core.errors:ReletError", "is not a PoolAdapter class"),
    ],
)
def test_what_a_spec_points_to(registry, target, says):
    registry.register(plugin(AdapterSpec("mine", target)))
    with pytest.raises(RegistryError, match=says):
        registry.load("mine")


def test_policies_come_by_a_hook(registry):
    class Plugin:
        @hookimpl
        def relet_policies(self):
            return {"gentle": ReleasePolicy(check_idle=3), "eager": ReleasePolicy()}

    assert registry.policies() == {}
    registry.register(Plugin())
    assert list(registry.policies()) == ["eager", "gentle"]


def test_a_plugin_that_imports_an_engine_which_is_not_there(install, tmp_path):
    """While plugins are looked for there are no engines; to look for them would not end."""
    install("stale", "stale_plugin", "import relet.backends.gone.base")
    code = (
        "from relet.core import registry; import relet.backends; "
        "print(registry.spec('psycopg').name, *registry.problems())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith("psycopg plugin 'stale_plugin' of 'stale' "), run.stderr
    assert "No adapter is named 'gone'" in run.stdout
