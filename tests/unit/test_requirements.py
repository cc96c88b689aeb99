"""What an adapter requires: modules, of distributions that are new enough."""

import pytest

from relet.core import AdapterSpec, MissingDependency, RegistryError, hookimpl
from relet.core.registry import Registry
from relet.core.requirements import parse


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution that has one module."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(distribution, version, module=None):
        module = module or distribution.replace("-", "_")
        (tmp_path / f"{module}.py").touch()
        metadata = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (metadata / "top_level.txt").write_text(f"{module}\n")
        from relet.core import requirements

        requirements._distributions.cache_clear()

    yield installed
    from relet.core import requirements

    requirements._distributions.cache_clear()


def missing(registry, *requires):
    return registry.missing(AdapterSpec("mine", "mine:Adapter", requires))


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("3.3", "3.3", True),
        ("3.3.0", "3.3", True),
        ("3.3", "3.3.0", True),
        ("3.10", "3.9", True),
        ("4", "3.9", True),
        ("3.3.0b1", "3.3", True),
        ("2.9.10 (dt dec)", "2.9", True),
        ("3.2.99", "3.3", False),
        ("3", "3.3", False),
        ("3.9", "3.10", False),
        ("unknown", "0.1", False),
    ],
)
def test_versions(registry, installed, version, minimum, enough):
    installed("relet-pool", version)
    found = missing(registry, f"relet_pool>={minimum}")
    assert found == ([] if enough else [f"relet_pool>={minimum} ({version} is installed)"])


@pytest.mark.parametrize(("version", "below"), [("3.4", "3.4"), ("3.4.0", "3.4"), ("4", "3.4")])
def test_what_is_too_new(registry, installed, monkeypatch, version, below):
    installed("relet-pool", version)
    says = f"relet_pool>=3.3,<{below} ({version} is installed)"
    assert missing(registry, f"relet_pool >= 3.3, < {below}") == [says]
    assert missing(registry, "relet_pool>=3.3,<5") == []
    monkeypatch.setenv("RELET_UNREAD_VERSIONS", "1")
    assert missing(registry, f"relet_pool>=3.3,<{below}") == []
    assert missing(registry, "relet_pool>=9,<10") != []


def test_any_version_will_do(registry, installed):
    installed("relet-pool", "0.0.1")
    assert missing(registry, "relet_pool") == []


def test_what_is_not_installed(registry):
    assert missing(registry, "relet_pool>=3.3") == ["relet_pool>=3.3"]
    assert missing(registry, ("relet_one>=1", "relet_two")) == ["relet_one>=1 or relet_two"]


def test_a_distribution_of_another_name(registry, installed):
    installed("relet-one-binary", "2.8", "relet_one")
    assert missing(registry, "relet_one>=2.9") == ["relet_one>=2.9 (2.8 is installed)"]


def test_a_module_of_no_distribution(registry, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "relet_vendored.py").touch()
    assert missing(registry, "relet_vendored>=3") == []


def test_of_several_the_first_that_is_there_is_used(registry, installed):
    installed("relet-two", "2.9")
    choice = ("relet_one>=3.2", "relet_two>=2.9")
    assert missing(registry, choice) == []
    installed("relet-one", "3.1")
    assert missing(registry, choice) == ["relet_one>=3.2 (3.1 is installed)"]


@pytest.mark.parametrize(
    "text", ["pool==3", "pool>3", "pool>=", "pool>=3,<", "pool<4", ">=3", "", "a b"]
)
def test_what_is_no_requirement(registry, text):
    with pytest.raises(RegistryError, match="is not a module, 'module>=version'"):
        parse(text)

    class Plugin:
        @hookimpl
        def relet_adapters(self):
            return [AdapterSpec("mine", "mine:Adapter", (text,))]

    with pytest.raises(RegistryError, match="adapter 'mine': 'requires' is "):
        registry.register(Plugin())


#: Distributions, and a version of each that is too old.
TOO_OLD = [
    ("psycopg", "psycopg", "3.1.19", "psycopg>=3.2"),
    ("psycopg", "psycopg-pool", "3.2.4", "psycopg_pool>=3.3,<3.4"),
    ("sqlalchemy", "SQLAlchemy", "1.4.54", "sqlalchemy>=2.0,<2.2"),
    ("sqlalchemy", "psycopg", "3.1.19", "psycopg>=3.2"),
    ("dj_db_conn_pool", "django-db-connection-pool", "1.2.5", "dj_db_conn_pool>=1.2.6"),
    ("dj_db_conn_pool", "SQLAlchemy", "1.4.54", "sqlalchemy>=2.0,<2.2"),
    ("pg8000", "pg8000", "1.30.0", "pg8000>=1.31.3"),
    ("pg8000", "SQLAlchemy", "1.4.54", "sqlalchemy>=2.0,<2.2"),
]
#: And versions whose private parts relet has not been written for.
TOO_NEW = [
    ("psycopg", "psycopg-pool", "3.4.0", "psycopg_pool>=3.3,<3.4"),
    ("sqlalchemy", "SQLAlchemy", "2.2.0b1", "sqlalchemy>=2.0,<2.2"),
    ("dj_db_conn_pool", "SQLAlchemy", "2.2.0", "sqlalchemy>=2.0,<2.2"),
    ("pg8000", "SQLAlchemy", "3.0", "sqlalchemy>=2.0,<2.2"),
]


@pytest.mark.parametrize(("name", "distribution", "version", "needs"), [*TOO_OLD, *TOO_NEW])
def test_relets_own(registry, installed, name, distribution, version, needs):
    """It is told of before anything of it is imported."""
    modules = {"SQLAlchemy": "sqlalchemy", "django-db-connection-pool": "dj_db_conn_pool"}
    installed(distribution, version, modules.get(distribution))
    with pytest.raises(MissingDependency) as caught:
        registry.load(name)
    text = str(caught.value)
    assert f"Adapter {name!r} requires" in text
    assert f"{needs} ({version} is installed)" in text
    assert f"pip install 'relet[{name}]'" in text
