"""Deprecated: use `relet.backends.compat.django_on_pg8000.contrib`."""

from relet.core.deprecated import moved

__getattr__ = moved(
    __name__, {"PostgresConfig": "relet.backends.compat.django_on_pg8000.contrib:PostgresConfig"}
)
