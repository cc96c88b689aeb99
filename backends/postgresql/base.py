from relet.backends.engines import build

DatabaseWrapper = build("postgresql", module=__name__)
