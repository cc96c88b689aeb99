"""Requirements: the modules that an adapter requires, and their minimum versions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import NamedTuple

from .errors import RegistryError
from .hookspecs import AdapterSpec
from .outside import attempt

_WRITTEN = re.compile(r"\s*([^\W\d][\w.]*)\s*(?:>=\s*(\d+(?:\.\d+)*)\s*)?")


class Requirement(NamedTuple):
    """A module, and the minimum version of its distribution; ``""`` allows any version."""

    module: str
    minimum: str

    def __str__(self) -> str:
        return f"{self.module}>={self.minimum}" if self.minimum else self.module


def parse(text: str) -> Requirement:
    """Return the requirement written as *text*: ``"module"`` or ``"module>=version"``.

    :raises RegistryError: *text* is neither.
    """
    if (match := _WRITTEN.fullmatch(text)) is None:
        raise RegistryError(f"{text!r} is neither a module nor 'module>=version'.")
    return Requirement(match[1], match[2] or "")


def choices(spec: AdapterSpec) -> list[list[Requirement]]:
    """Return the requirements of *spec*. Each list holds alternatives, one of which is enough."""
    return [
        [parse(text) for text in ((entry,) if isinstance(entry, str) else entry)]
        for entry in spec.requires
    ]


def missing(spec: AdapterSpec) -> list[str]:
    """Return the requirements of *spec* that are not met; see `Registry.missing`."""
    return [problem for choice in choices(spec) if (problem := _problem(choice)) is not None]


def _problem(choice: Sequence[Requirement]) -> str | None:
    """Return what is missing if none of the alternatives in *choice* is met, otherwise None."""
    for requirement in choice:
        if _is_importable(requirement.module):
            # The adapter will use this one, even if a later alternative is new enough.
            installed = _installed(requirement.module) if requirement.minimum else None
            if installed is None or _numbers(installed) >= _numbers(requirement.minimum):
                return None
            return f"{requirement} ({installed} is installed)"
    return " or ".join(map(str, choice))


def _is_importable(module: str) -> bool:
    # find_spec() imports the parent packages, which may be broken.
    found, _ = attempt(lambda: find_spec(module))
    return found is not None


def _installed(module: str) -> str | None:
    """Return the version of *module* without importing it, or None if it is unknown."""
    package = module.partition(".")[0]
    try:
        return version(package)
    except PackageNotFoundError:  # the distribution has another name
        names = _distributions().get(package, ())
    return version(names[0]) if names else None


@cache
def _distributions() -> dict[str, list[str]]:
    # This is slow: it reads the file lists of all installed distributions.
    return dict(packages_distributions())


def _numbers(text: str) -> list[int]:
    """Return the leading numbers of the version *text*. A pre-release counts as its release."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        del numbers[-1]
    return numbers
