"""gunicorn's settings. Here, and not arguments: gunicorn passes over names it does not know."""

worker_class = "gthread"
workers = 1
keepalive = 30
#: Seconds to wait, once asked to end, for requests under way.
graceful_timeout = 3
#: Newer versions else make a socket in the user's home.
control_socket_disable = True
