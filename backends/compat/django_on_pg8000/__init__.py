"""Django's PostgreSQL backend on pg8000: the base of the engine ``relet.backends.pg8000``.

Django's backend needs psycopg, which needs libpq. Here the modules of the installed Django run
with `psycopg_shim` in place of psycopg.
"""
