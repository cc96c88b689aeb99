from relet.backends.engines import build

DatabaseWrapper = build("dj_db_conn_pool", module=__name__)
