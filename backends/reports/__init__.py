"""Reports: what relet has noted, for those who ask.

``relet.connections()``, ``relet.queries()``, ``relet.routes()``, ``relet.pools()`` and
``relet.plans()`` return a `report.Report`. Each file here has one of them, and the dataclass of its
rows.
"""
