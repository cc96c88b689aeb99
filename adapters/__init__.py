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
    ]
