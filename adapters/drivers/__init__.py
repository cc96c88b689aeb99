"""What adapters ask of drivers: a class for each, to be mixed into a `PoolAdapter`.

An adapter is a pool and a driver. What concerns the driver alone is here, once::

    class ShopAdapter(Psycopg, PoolAdapter[psycopg.Connection[Any]]):
        ...

`djangos.Driver` is the one that Django has picked. None of them is imported unless asked for.
"""
