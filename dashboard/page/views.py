"""Views: the page, its style sheet, and the ending of a session.

Addresses in the page are relative, so it works wherever it is included. Arguments of the path there
mean nothing here.
"""

from __future__ import annotations

import logging
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.template import Context, Engine, Template
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_GET, require_POST, require_safe

from relet.backends.reports.reason import reason
from relet.dashboard import fleet as fleets
from relet.dashboard import sessions as server
from relet.dashboard.fleet import Filter

from .sections import address, hours, sections

logger = logging.getLogger("relet")

VIEW, END = "relet_dashboard.view_fleet", "relet_dashboard.end_session"
#: The parameters of the page's address.
_TABLES = ("sessions", "pools", "routes", "queries", "processes")
_PARAMETERS = ("host", "alias", "route", "refresh", "all", "stacks", *_TABLES)
#: Seconds after which the page is loaded anew, unless the address says otherwise; and the limits.
_REFRESH_S, _FASTEST_S, _SLOWEST_S = 10, 2, 600
_HERE = Path(__file__).parent
_DONE = {
    "ended": "The session was ended.",
    "gone": "Nothing was ended: there is no such session any more, or it may not be ended.",
    "failed": "Nothing was ended: the server refused, or could not be asked. See the log.",
}
#: What the page needs is all its own. It says so itself, whether the project has a policy or not.
_POLICY = "default-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def _checked(request: HttpRequest, permission: str) -> HttpResponse | None:
    """Return where to log in, if nobody has; None if the user has the permission.

    :raises PermissionDenied: the user does not have it.
    """
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        if user is None or request.method != "GET" or request.GET.get("format") == "json":
            raise PermissionDenied
        # Late: it needs django.contrib.auth, which a project may do without.
        from django.contrib.auth.views import redirect_to_login

        return redirect_to_login(request.get_full_path())
    if not user.has_perm(permission):
        raise PermissionDenied
    return None


@never_cache
@require_safe
@csrf_protect
def page(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """The fleet; with ``?format=json`` as JSON.

    Parameters: ``host``, ``alias`` and ``route`` filter; ``sessions``, ``pools``, ``routes``,
    ``queries`` and ``processes`` are a column to sort by, after a minus the other way round;
    ``all`` is a table to show all rows of; ``stacks`` opens all stacks; ``refresh`` is a number of
    seconds, or 0.
    """
    if (login := _checked(request, VIEW)) is not None:
        return login
    here = address(request, _PARAMETERS)
    only = Filter(here.get("host"), here.get("alias"), here.get("route"))
    fleet = fleets.read(only)
    if request.GET.get("format") == "json":
        return JsonResponse(fleet.as_dict())
    refresh = _refresh(here.get("refresh"))
    user: Any = request.user
    token = get_token(request) if user.has_perm(END) else None
    context = {
        "fleet": fleet,
        "only": only,
        "hours": hours(fleet),
        "sections": sections(fleet, here, token),
        "hidden": [(name, here.get(name)) for name in ("refresh", *_TABLES) if here.get(name)],
        "refresh": refresh,
        "pause": here.link(refresh="0"),
        "resume": here.link(refresh=None),
        "open": here.get("stacks") is not None,
        "open_link": here.link("sessions", stacks="1", refresh="0"),
        "close_link": here.link("sessions", stacks=None),
        "json": here.link(format="json"),
        "done": _DONE.get(request.GET.get("done", "")),
    }
    response = HttpResponse(_template().render(Context(context)))
    response["Content-Security-Policy"] = _POLICY
    response["Referrer-Policy"] = "same-origin"
    if refresh:
        response["Refresh"] = f"{refresh}; url={here.link()}"
    return response


def _refresh(given: str | None) -> int:
    """Return the seconds after which the page is loaded anew; 0 for never."""
    if given is None or not given.isascii() or not given.isdigit():
        return _REFRESH_S
    seconds = int(given[:6])
    return seconds and min(max(seconds, _FASTEST_S), _SLOWEST_S)


@cache
def _template() -> Template:
    # An engine of its own: it needs nothing of the project's TEMPLATES.
    return Engine(dirs=[str(_HERE)]).get_template("fleet.html")


@never_cache
@require_POST
@csrf_protect
def end(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """End a session: ``alias``, ``pid``, and ``started`` as the page has it."""
    for permission in (VIEW, END):
        _checked(request, permission)
    given = request.POST
    pid, started = given.get("pid", ""), given.get("started", "")
    if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in (pid, started)):
        return HttpResponse(status=HTTPStatus.BAD_REQUEST)
    user: Any = request.user
    try:
        ended = server.end(given.get("alias", ""), int(pid), int(started))
        done = "ended" if ended else "gone"
    except Exception as error:  # noqa: BLE001 - anything that a driver raises
        logger.warning("A session could not be ended: %s.", reason(error))
        done = "failed"
    logger.warning(
        "The user %s asked to end the session with pid %s of the alias %r: %s.",
        *(user.pk, pid, given.get("alias", "")[:100], done),
    )
    return HttpResponseRedirect(f"../?done={done}")


@require_GET
def style(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """The style sheet. It is no secret, and needs no static files to be set up."""
    response = HttpResponse((_HERE / "fleet.css").read_bytes(), content_type="text/css")
    response["Cache-Control"] = "max-age=300"
    return response
