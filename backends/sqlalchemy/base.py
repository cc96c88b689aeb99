from relet.backends.engines import build

DatabaseWrapper = build("sqlalchemy", module=__name__)
