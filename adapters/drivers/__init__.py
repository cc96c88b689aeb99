"""What adapters need to know of drivers: a class for each, to mix into a `PoolAdapter`.

An adapter combines a pool and a driver. The driver's part is here::

    class ShopAdapter(Psycopg, PoolAdapter[psycopg.Connection[Any]]):
        ...

`default.Driver` is the driver that Django picks. Each driver is imported only when it is used.
"""
