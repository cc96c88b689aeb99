"""Django's PostgreSQL backend on pg8000: what the engine ``relet.backends.pg8000`` builds on.

Django's own is written for psycopg, which is made of libpq. Here its modules run with another
driver in psycopg's place, `psycopg_shim`; so they are those of the Django that is installed.
"""
