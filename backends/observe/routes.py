"""Routes: what the code of this thread or task runs for, found without a middleware.

* A request: Django says when it begins and ends, and which URL pattern it has, once the handler has
  resolved it. Django has no signal for that, so two methods of its handlers are wrapped. Middleware
  could do it, but would have to be added by hand, and the queries of outer middleware would be
  missing.
* A Celery task: Celery has signals for it.
* A management command: ``BaseCommand.execute`` is wrapped; the one of the command line is found in
  the stack.

Nothing is wrapped unless an alias is observed.
"""

from __future__ import annotations

import re
import sys
import threading
from _thread import get_ident
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.management.base import BaseCommand
from django.core.signals import request_finished, request_started

from . import scopes
from .scopes import CURRENT, Scope

#: The route of a request that was not resolved yet, or never is.
MIDDLEWARE = "(middleware)"

#: Identifies scopes of requests, tasks and commands.
_REQUEST, _TASK, _COMMAND = object(), object(), object()

_celery_connected = False


class _Main:
    """The scope of what the main thread does outside of all others."""

    scope: Scope | None = None


def install() -> None:
    """Follow requests, tasks and commands from now on. Calling it again changes nothing."""
    _wrap(BaseHandler, "resolve_request", _resolving)
    _wrap(ASGIHandler, "handle", _handling)
    _wrap(BaseCommand, "execute", _executing)
    request_started.connect(_request_started, dispatch_uid="relet.route")
    request_finished.connect(_request_finished, dispatch_uid="relet.route")
    _connect_celery()
    # Models make a wrapper, and with it that scope, before the command line's command begins.
    if _Main.scope is not None and (command := _running_command()) is not None:
        _Main.scope.rename(command)


def _wrap(owner: type, name: str, wrapper: Callable[[Any], Any]) -> None:
    own = vars(owner)[name]
    if not hasattr(own, "__relet__"):
        wrapped: Any = wraps(own)(wrapper(own))
        wrapped.__relet__ = True
        setattr(owner, name, wrapped)


# Requests.


def _resolving(resolve_request: Any) -> Any:
    def resolve(self: Any, request: Any) -> Any:
        match = resolve_request(self, request)
        scope = _request_scope() or scopes.enter(MIDDLEWARE, _REQUEST)
        scope.rename(pattern(getattr(request.resolver_match, "route", None)))
        return match

    return resolve


def _handling(handle: Any) -> Any:
    # Each request is a task of its own or a part of one. Its response may be streamed after the
    # handler has ended.
    async def handled(*args: Any, **kwargs: Any) -> Any:
        scopes.enter(MIDDLEWARE, _REQUEST)
        try:
            return await handle(*args, **kwargs)
        finally:
            scopes.leave(_REQUEST)

    return handled


def _request_scope() -> Scope | None:
    scope = CURRENT.get()
    while scope is not None and scope.owner is not _REQUEST:
        scope = scope.outer
    return scope


def _request_started(**kwargs: Any) -> None:
    # Under ASGI this is called in a copy of the context, where it has no effect.
    scopes.enter(MIDDLEWARE, _REQUEST)


def _request_finished(**kwargs: Any) -> None:
    scopes.leave(_REQUEST)


def pattern(route: str | None) -> str:
    """Return the name of a request with *route*, the URL pattern, which has no leading slash."""
    return MIDDLEWARE if route is None else f"/{route.removeprefix('^').removeprefix('/')}"


# Celery.


def _connect_celery() -> None:
    """Follow Celery's tasks once it was imported. Name the task that runs now, if any."""
    global _celery_connected
    celery = sys.modules.get("celery")
    if _celery_connected or celery is None or "celery.signals" not in sys.modules:
        return
    _celery_connected = True
    signals = sys.modules["celery.signals"]
    signals.task_prerun.connect(_task_began, weak=False, dispatch_uid="relet.route")
    signals.task_postrun.connect(_task_ended, weak=False, dispatch_uid="relet.route")
    if (task := getattr(celery, "current_task", None)) and getattr(task, "name", None):
        scopes.enter(str(task.name), _TASK)


def _task_began(*args: Any, task: Any = None, **kwargs: Any) -> None:
    scopes.enter(str(getattr(task, "name", task)), _TASK)


def _task_ended(*args: Any, **kwargs: Any) -> None:
    scopes.leave(_TASK)


# Commands.


def _executing(execute: Any) -> Any:
    def executed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is not None:  # called by a request, a task, or another command
            return execute(self, *args, **kwargs)
        scopes.enter(_command(self), _COMMAND)
        try:
            return execute(self, *args, **kwargs)
        finally:
            scopes.leave(_COMMAND)

    return executed


def _command(command: object) -> str:
    return f"manage.py {type(command).__module__.rpartition('.')[2]}"


# Everything else.


def fallback() -> Scope:
    """Return the scope of what this thread does outside of requests, tasks, commands and labels."""
    _connect_celery()
    if get_ident() != threading.main_thread().ident:
        return Scope(f"(thread {_thread_name()})")
    _Main.scope = Scope(_running_command() or f"(thread {_thread_name()})")
    return _Main.scope


def _running_command() -> str | None:
    """Return the route of the command line's command, which runs in the main thread, if any."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    code = BaseCommand.run_from_argv.__code__
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else _command(frame.f_locals.get("self"))


#: The names that Python gives to threads: without their numbers, all of them are one route.
_NUMBERED = re.compile(r"^(Thread-|ThreadPoolExecutor-|asyncio_|Dummy-)\d+(_\d+)?")


def _thread_name() -> str:
    # Not `current_thread`, which registers a thread that it does not know.
    mine = get_ident()
    name = next(
        (thread.name for thread in threading.enumerate() if thread.ident == mine), "Dummy-1"
    )
    return _NUMBERED.sub(r"\1N", name)
