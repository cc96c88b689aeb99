"""Package: somebody else's, whose own tests run on relet."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomllib

PACKAGES = Path(__file__).with_name("packages.toml")


@dataclass(frozen=True)
class Package:
    """What packages.toml says of one; see there."""

    name: str
    version: str
    requires: list[str]
    passes: int
    tests: str
    folder: str = "."
    edits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    fails: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> Package:
        known = tomllib.loads(PACKAGES.read_text())
        if name not in known:
            raise SystemExit(f"{name} is not in packages.toml; {', '.join(known)} are.")
        return cls(name, **known[name])

    def unpack(self, into: Path, placeholders: Mapping[str, str]) -> Path:
        """Unpack its sdist, with its edits; return the folder in which its tests run."""
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(into)]
        source_only = ["--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, *source_only, f"{self.name}=={self.version}"], check=True)
        (archive,) = into.glob("*.tar.gz")
        with tarfile.open(archive) as sdist:
            sdist.extractall(into, filter="data")
        root = into / archive.name.removesuffix(".tar.gz")
        for name, edits in self.edits.items():
            text = (root / name).read_text()
            for old, new in edits.items():
                if old not in text:
                    raise SystemExit(f"{self.name} {self.version}: {old!r} is not in {name}.")
                text = text.replace(old, filled(new, placeholders))
            (root / name).write_text(text)
        return root / self.folder


def filled(text: str, placeholders: Mapping[str, str]) -> str:
    for name, value in placeholders.items():
        text = text.replace(f"{{{name}}}", value)
    return text
