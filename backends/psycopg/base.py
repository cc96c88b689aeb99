from relet.backends.engines import build

DatabaseWrapper = build("psycopg", module=__name__)
