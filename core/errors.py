"""The exceptions that relet raises. Errors of the database are raised by the driver instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache


def reduced(error: BaseException) -> tuple[object, ...]:
    """Return the result of ``__reduce__`` for a class whose ``__init__`` composes its text.

    By default, unpickling and copying call the class with its `args`. The ``__init__`` of such a
    class takes other arguments.
    """
    return _restored, (type(error), error.args), vars(error)


def _restored(error_class: type[BaseException], arguments: tuple[object, ...]) -> BaseException:
    return error_class.__new__(error_class, *arguments)


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return the name in *known* that was probably meant by *name*, or None."""
    return next(iter(difflib.get_close_matches(str(name), list(known), 1)), None)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"``, or ``""`` if no known name is close enough."""
    meant = closest(name, known)
    return "" if meant is None else f" (did you mean {meant!r}?)"


class ReletError(Exception):
    """Base class of all errors that relet raises."""

    def __reduce__(self) -> tuple[object, ...]:
        return reduced(self)


class IllegalEvent(ReletError):
    """An event is not possible in the lease's current state.

    Raised when a statement is run from inside another one on the same wrapper, such as by a notice
    handler, or by a parameter that queries the database. A driver connection can only do one thing
    at a time; psycopg would deadlock.
    """

    def __init__(self, alias: str, state: str, event: str) -> None:
        super().__init__(
            f"DATABASES[{alias!r}]: {event!r} is not possible while the lease is {state!r}. "
            "Most likely a statement was run from inside another one, such as by a notice handler "
            "or by a generator passed to executemany(). Run the inner statement first."
        )
        self.alias, self.state, self.event = alias, state, event
        #: Whether the inner statement's caller has got this error. An error raised after that
        #: belongs to the outer statement.
        self.heard = False


class PoolTimeout(ReletError):
    """No connection became free in time. The text names the current holders.

    The exception raised is also the driver's ``OperationalError``, so Django wraps it in its own
    ``OperationalError``; this one is its ``__cause__``.
    """


@cache
def pool_timeout(operational_error: type[Exception]) -> type[Exception]:
    """Return a `PoolTimeout` class that is also *operational_error*, a driver's class (PEP 249)."""

    def reduce(error: Exception) -> tuple[object, ...]:
        # pickle cannot find this class by name. The driver's class knows what state to keep.
        state = operational_error.__reduce__(error)[2:]
        return _timed_out, (operational_error, error.args), *state

    attributes = {"__module__": __name__, "__reduce__": reduce}
    return type("PoolTimeout", (PoolTimeout, operational_error), attributes)


def _timed_out(operational_error: type[Exception], arguments: tuple[object, ...]) -> Exception:
    """Return an unpickled `PoolTimeout`."""
    return pool_timeout(operational_error)(*arguments)  # type: ignore[arg-type]


class ConfigurationError(ReletError):
    """A policy or pool option is wrong. The text says which, and what is allowed."""


class RegistryError(ReletError):
    """A plugin is broken or registers an adapter wrongly. The text names the plugin."""


class UnknownAdapter(ReletError):
    """No adapter with that name is registered."""

    def __init__(self, name: str, known: list[str], problems: Sequence[str] = ()) -> None:
        meant = closest(name, known)
        guess = "" if meant is None else f"Did you mean {meant!r}? "
        broken = "".join(f" A broken plugin may be the cause: {problem}" for problem in problems)
        super().__init__(
            f"No adapter is named {name!r}. Registered adapters: {', '.join(known) or 'none'}. "
            f"{guess}"
            "If a plugin provides it, check that the plugin is installed and has an entry point in "
            f"the group 'relet'.{broken}"
        )
        self.name, self.known = name, known


class UnknownEngine(ReletError, ModuleNotFoundError):
    """``ENGINE`` names a module of relet that is no engine. The text says what to write.

    :param engine: what ``ENGINE`` says.
    :param meant: the engine that is probably meant.
    :param remark: what else to say, with a space before it.
    """

    def __init__(self, engine: str, meant: str, remark: str = "") -> None:
        super().__init__(
            f"{engine!r} is not an engine. Write 'ENGINE': {meant!r}.{remark} "
            "Run `relet adapters` for a list of all engines.",
            name=engine,
        )
        self.engine, self.meant = engine, meant


class MissingDependency(ReletError):
    """An adapter is registered, but a module it requires is missing or too old."""

    def __init__(self, name: str, missing: list[str], install: str) -> None:
        super().__init__(
            f"Adapter {name!r} requires {', '.join(missing)}. Run: pip install '{install}'"
        )
        self.name, self.missing, self.install = name, missing, install
