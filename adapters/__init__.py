"""The adapters that come with relet, registered as a stranger's would be.

This module imports no driver: it says what there is, and what each needs.
"""

from relet.core import AdapterSpec, hookimpl


@hookimpl
def relet_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="psycopg",
            adapter="relet.adapters.psycopg:PsycopgAdapter",
            requires=("psycopg", "psycopg_pool"),
            install="relet[psycopg]",
        ),
        AdapterSpec(
            name="sqlalchemy",
            adapter="relet.adapters.sqlalchemy:SQLAlchemyAdapter",
            requires=("sqlalchemy", ("psycopg", "psycopg2")),
            install="relet[sqlalchemy]",
        ),
        AdapterSpec(
            name="dj_db_conn_pool",
            adapter="relet.adapters.dj_db_conn_pool:DjDbConnPoolAdapter",
            requires=("dj_db_conn_pool", "sqlalchemy", ("psycopg", "psycopg2")),
            install="relet[dj_db_conn_pool]",
        ),
        AdapterSpec(
            name="pg8000",
            adapter="relet.adapters.pg8000:Pg8000Adapter",
            backend="relet.backends.postgresql_pg8000",
            requires=("pg8000", "sqlalchemy"),
            install="relet[pg8000]",
        ),
    ]
