"""The plugin, which relet finds by its entry point. It imports neither adapter nor driver."""

from relet.core import AdapterSpec, hookimpl


@hookimpl
def relet_adapters():
    return [
        AdapterSpec(
            name="stack",
            adapter="relet_stack.adapter:StackAdapter",
            requires=("psycopg",),
            install="psycopg[binary]",
        )
    ]
