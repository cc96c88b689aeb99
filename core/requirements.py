"""Requirements: the modules that an adapter requires, and their minimum versions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import NamedTuple

from .errors import RegistryError
from .hookspecs import AdapterSpec
from .outside import attempt

_VERSION = r"(\d+(?:\.\d+)*)"
_WRITTEN = re.compile(rf"\s*([^\W\d][\w.]*)\s*(?:>=\s*{_VERSION}\s*(?:,\s*<\s*{_VERSION}\s*)?)?")

#: Environment variable: if it is set, versions that are too new for an adapter are used anyway. It
#: is for trying a new release.
UNREAD_VERSIONS = "RELET_UNREAD_VERSIONS"


class Requirement(NamedTuple):
    """A module, and versions of its distribution.

    :param minimum: the oldest version; ``""`` allows any.
    :param below: the first version that is too new; ``""`` allows all. An adapter that relies on
        private parts of a package knows them in the versions that it was written for.
    """

    module: str
    minimum: str
    below: str = ""

    def __str__(self) -> str:
        minimum = f">={self.minimum}" if self.minimum else ""
        return f"{self.module}{minimum}{f',<{self.below}' if self.below else ''}"

    def allows(self, installed: str) -> bool:
        """Return whether the version *installed* will do."""
        number = _numbers(installed)
        bounded = self.below and UNREAD_VERSIONS not in os.environ
        return number >= _numbers(self.minimum) and not (bounded and number >= _numbers(self.below))


def parse(text: str) -> Requirement:
    """Return the requirement written as *text*.

    :param text: ``"module"``, ``"module>=version"`` or ``"module>=version,<version"``.
    :raises RegistryError: *text* is none of these.
    """
    if (match := _WRITTEN.fullmatch(text)) is None:
        raise RegistryError(
            f"{text!r} is not a module, 'module>=version' or 'module>=version,<version'."
        )
    return Requirement(match[1], match[2] or "", match[3] or "")


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
            if installed is None or requirement.allows(installed):
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
