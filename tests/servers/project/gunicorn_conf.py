"""gunicorn's settings. Here, and not arguments: gunicorn passes over names it does not know."""

from __future__ import annotations

worker_class = "gthread"
workers = 2
threads = 8
wsgi_app = "project.wsgi"
loglevel = "warning"
#: Seconds to wait, once asked to end, for requests under way.
graceful_timeout = 5
#: Newer versions else make a socket in the user's home.
control_socket_disable = True
