"""``relet.label``: a name for a block of code, in the place of a route."""

from __future__ import annotations

from weakref import ref

from relet.backends.leases.context_decorator import AsyncContextDecorator
from relet.backends.observe import scopes


class Label(AsyncContextDecorator):
    """The context manager and decorator that `label` returns."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        scopes.enter(self._text, ref(self))

    def __exit__(self, *exc_info: object) -> None:
        scopes.leave(ref(self))

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()


def label(text: str) -> Label:
    """Name a block or a decorated function, for reports, logs and metrics.

    Inside it, `relet.routes`, `relet.queries` and `relet.connections` show *text* as the route. It
    is for code that is no request, task or command, and for parts of them that deserve a row of
    their own. It belongs to this thread or task. Use few texts: never one for each user or order.

    :param text: at most 200 characters of it are kept.
    :raises TypeError: *text* is not text, or empty.

    ::

        with label("import"): ...

        async with label("import"): ...

        @label("nightly import")
        def run(): ...
    """
    if not isinstance(text, str) or not text:
        raise TypeError(f'label() takes a str, not {text!r}. Decorate with @label("...").')
    return Label(text)
