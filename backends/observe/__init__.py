"""What relet notes of statements and leases: counts by thread, routes, stacks.

`relet.backends.reports` shows it. How to read the counts: see `relet.core.observe`.
"""
