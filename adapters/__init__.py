"""The built-in adapters, registered in the same way as a plugin's.

This module imports no driver. It lists the adapters and what each requires, as the extras in
pyproject.toml do.
"""

from relet.core import AdapterSpec, hookimpl

PSYCOPG, PSYCOPG2 = "psycopg>=3.2", "psycopg2>=2.9"
# The pools rely on private parts of these. A later version may have others, so it is refused, and
# none of what relet guarantees is lost silently.
PSYCOPG_POOL, SQLALCHEMY = "psycopg_pool>=3.3,<3.4", "sqlalchemy>=2.0,<2.2"


@hookimpl
def relet_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="psycopg",
            adapter="relet.adapters.psycopg:PsycopgAdapter",
            requires=(PSYCOPG, PSYCOPG_POOL),
            install="relet[psycopg]",
            # For packages that check whether "postgresql" is in ENGINE.
            aliases=("postgresql",),
        ),
        AdapterSpec(
            name="sqlalchemy",
            adapter="relet.adapters.sqlalchemy:SQLAlchemyAdapter",
            requires=(SQLALCHEMY, (PSYCOPG, PSYCOPG2)),
            install="relet[sqlalchemy]",
        ),
        AdapterSpec(
            name="dj_db_conn_pool",
            adapter="relet.adapters.dj_db_conn_pool:DjDbConnPoolAdapter",
            requires=("dj_db_conn_pool>=1.2.6", SQLALCHEMY, (PSYCOPG, PSYCOPG2)),
            install="relet[dj_db_conn_pool]",
        ),
        AdapterSpec(
            name="pg8000",
            adapter="relet.adapters.pg8000:Pg8000Adapter",
            backend="relet.backends.compat.django_on_pg8000",
            requires=("pg8000>=1.31.3", SQLALCHEMY),
            install="relet[pg8000]",
        ),
    ]
