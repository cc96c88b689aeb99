"""gunicorn's settings. Not arguments, because gunicorn ignores unknown names only in a file."""

worker_class = "gthread"
workers = 1
keepalive = 30
#: Seconds to wait for pending requests when stopping.
graceful_timeout = 3
#: Without this, newer versions create a socket in the user's home directory.
control_socket_disable = True
