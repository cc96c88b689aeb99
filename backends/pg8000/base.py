from relet.backends.engines import build

DatabaseWrapper = build("pg8000", module=__name__)
