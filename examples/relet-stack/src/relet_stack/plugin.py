"""What relet finds through the entry point. It imports neither the adapter nor psycopg."""

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
