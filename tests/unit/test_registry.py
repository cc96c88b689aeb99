"""The registry: built-ins by the front door, and wrong plugins named."""

import sys

import pytest

from relet.core import (
    AdapterSpec,
    MissingDependency,
    RegistryError,
    ReleasePolicy,
    UnknownAdapter,
    hookimpl,
)
from relet.core.registry import Registry


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
    with pytest.raises(UnknownAdapter, match=r"Registered are: .*\bpsycopg\b") as caught:
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


def test_a_plugin_that_cannot_be_imported_is_named(registry, monkeypatch, tmp_path):
    metadata = tmp_path / "guilty-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: guilty\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[relet]\nguilty = no_such_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RegistryError, match=r"'guilty' \(no_such_plugin\) cannot be loaded"):
        registry.specs()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("psycopg", "must return AdapterSpec objects, not 'psycopg'"),
        (AdapterSpec("not a name", "x:Y"), "must be an identifier"),
        (AdapterSpec("mine", "x.Y"), "must be given as 'package.module:Class'"),
        (AdapterSpec("psycopg", "x:Y"), "both register an adapter 'psycopg'"),
    ],
)
def test_a_wrong_plugin_is_named_and_stays_out(registry, spec, says):
    wrong = plugin(spec)
    with pytest.raises(RegistryError, match=says) as caught:
        registry.register(wrong, "guilty")
    assert "'guilty'" in str(caught.value)
    assert registry.load("psycopg")


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
        ("relet.adapters.psycopg:Nothing", "there is no"),
        ("relet.core.errors:ReletError", "is not a PoolAdapter class"),
    ],
)
def test_what_a_spec_points_to(registry, target, says):
    registry.register(plugin(AdapterSpec("mine", target)))
    with pytest.raises(RegistryError, match=says):
        registry.load("mine")


def test_policies_and_owners_come_by_hooks(registry):
    class Plugin:
        @hookimpl
        def relet_policies(self):
            return {"gentle": ReleasePolicy(check_idle=3), "eager": ReleasePolicy()}

    assert registry.policies() == {}
    registry.register(Plugin())
    assert list(registry.policies()) == ["eager", "gentle"]
    # relet's own Django layer.
    assert registry.owners() is registry.owners()
    assert type(registry.owners()).__name__ == "DjangoOwners"


def test_no_plugin_has_owners(registry, monkeypatch):
    module = sys.modules["relet.core.registry"]  # the attribute is the registry itself
    monkeypatch.setattr(module, "entry_points", lambda group: [])
    with pytest.raises(RegistryError, match=r"relet_owners\(\).*install relet with pip"):
        registry.owners()
