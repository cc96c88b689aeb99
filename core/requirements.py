"""Requirements: the modules that an adapter needs, and how new they must be."""

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
    """A module, and the oldest version of its distribution that will do; "" is any."""

    module: str
    minimum: str

    def __str__(self) -> str:
        return f"{self.module}>={self.minimum}" if self.minimum else self.module


def parse(text: str) -> Requirement:
    """Return what *text* says, a module or ``"module>=version"``.

    :raises RegistryError: it says something else.
    """
    if (match := _WRITTEN.fullmatch(text)) is None:
        raise RegistryError(f"{text!r} is neither a module nor 'module>=version'.")
    return Requirement(match[1], match[2] or "")


def choices(spec: AdapterSpec) -> list[list[Requirement]]:
    """Return what *spec* requires: of each list, one will do."""
    return [
        [parse(text) for text in ((entry,) if isinstance(entry, str) else entry)]
        for entry in spec.requires
    ]


def missing(spec: AdapterSpec) -> list[str]:
    """Return what *spec* requires and what is not there; see `Registry.missing`."""
    return [problem for choice in choices(spec) if (problem := _problem(choice)) is not None]


def _problem(choice: Sequence[Requirement]) -> str | None:
    """Return what is missing where one of *choice* will do; None if nothing is."""
    for requirement in choice:
        if _is_there(requirement.module):
            # This one is used, whether there are others or not.
            installed = _installed(requirement.module) if requirement.minimum else None
            if installed is None or _numbers(installed) >= _numbers(requirement.minimum):
                return None
            return f"{requirement} ({installed} is installed)"
    return " or ".join(map(str, choice))


def _is_there(module: str) -> bool:
    # It imports the parents, which may be broken.
    found, _ = attempt(lambda: find_spec(module))
    return found is not None


def _installed(module: str) -> str | None:
    """Return the version of *module*, which is not imported; None if nobody knows it."""
    package = module.partition(".")[0]
    try:
        return version(package)
    except PackageNotFoundError:  # its distribution has another name
        names = _distributions().get(package, ())
    return version(names[0]) if names else None


@cache
def _distributions() -> dict[str, list[str]]:
    # This reads the lists of files of all that is installed.
    return dict(packages_distributions())


def _numbers(text: str) -> list[int]:
    """Return the numbers that the version *text* begins with: a pre-release is as the release."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(number) for number in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        del numbers[-1]
    return numbers
