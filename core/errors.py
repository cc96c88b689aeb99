"""What relet raises. Errors of the database are the driver's, never these."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache


def reduced(error: BaseException) -> tuple[object, ...]:
    """Return what ``__reduce__`` is to, for a class whose ``__init__`` composes the text.

    By default an exception is unpickled, and copied, by a call with its `args`: such a class takes
    others.
    """
    return _restored, (type(error), error.args), vars(error)


def _restored(error_class: type[BaseException], arguments: tuple[object, ...]) -> BaseException:
    return error_class.__new__(error_class, *arguments)


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return what of *known* is so like *name* that it was probably meant, or None."""
    return next(iter(difflib.get_close_matches(str(name), list(known), 1)), None)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"``, or nothing; see `closest`."""
    meant = closest(name, known)
    return "" if meant is None else f" (did you mean {meant!r}?)"


class ReletError(Exception):
    """Base of all errors that relet itself raises."""

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


class IllegalEvent(ReletError):
    """A lease was told of something that cannot happen in its state.

    Raised for a statement that is run from inside another one on the same
    wrapper (a notice handler or a parameter that queries). A driver connection
    can do one thing at a time; psycopg would wait for itself for ever.
    """

    def __init__(self, alias: str, state: str, event: str) -> None:
        super().__init__(
            f"The lease of DATABASES[{alias!r}] is {state!r}; {event!r} cannot happen now. "
            "Most likely a statement is run from inside another one (a notice handler, a "
            "generator given to executemany()): fetch what it needs before."
        )
        self.alias, self.state, self.event = alias, state, event
        #: Whether whoever was refused has heard of it. What is raised from then on is an error of
        #: the statement around it.
        self.heard = False


class PoolTimeout(ReletError):
    """No connection came free in time. The text says who has them.

    What is raised is this and the driver's ``OperationalError``, so Django makes its own
    ``OperationalError`` of it, whose ``__cause__`` it is.
    """


@cache
def pool_timeout(operational_error: type[Exception]) -> type[Exception]:
    """Return the `PoolTimeout` that is also *operational_error*, a driver's class (PEP 249)."""

    def reduce(error: Exception) -> tuple[object, ...]:
        # The class has no name to be found by. What else it keeps, the driver's class knows.
        state = operational_error.__reduce__(error)[2:]
        return _timed_out, (operational_error, error.args), *state

    attributes = {"__module__": __name__, "__reduce__": reduce}
    return type("PoolTimeout", (PoolTimeout, operational_error), attributes)


def _timed_out(operational_error: type[Exception], arguments: tuple[object, ...]) -> Exception:
    """Return what was pickled."""
    return pool_timeout(operational_error)(*arguments)  # type: ignore[arg-type]


class ConfigurationError(ReletError):
    """A policy or pool option is wrong. The text says which, and what would be right."""


class RegistryError(ReletError):
    """A plugin registers an adapter wrongly. The text names the plugin."""


class UnknownAdapter(ReletError):
    """No adapter of that name is registered."""

    def __init__(self, name: str, known: list[str], problems: Sequence[str] = ()) -> None:
        meant = closest(name, known)
        guess = "" if meant is None else f"Did you mean {meant!r}? "
        told = "".join(f" There is a broken plugin, though: {problem}" for problem in problems)
        super().__init__(
            f"There is no adapter {name!r}. Registered are: {', '.join(known) or 'none'}. "
            f"{guess}"
            "An adapter plugin is found through the entry-point group 'relet'; is it installed?"
            f"{told}"
        )
        self.name, self.known = name, known


class MissingDependency(ReletError):
    """An adapter is registered, but what it needs is not installed, or too old."""

    def __init__(self, name: str, missing: list[str], install: str) -> None:
        super().__init__(
            f"The adapter {name!r} needs {', '.join(missing)}. Install it with: "
            f"pip install '{install}'"
        )
        self.name, self.missing, self.install = name, missing, install
