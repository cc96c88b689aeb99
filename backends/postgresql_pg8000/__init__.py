"""Deprecated: use `relet.backends.compat.django_on_pg8000`."""
