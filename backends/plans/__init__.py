"""Prepared plans: which statements are to be prepared, and for which pools.

`relet.core.plans` knows what is prepared; the adapters prepare it.
"""
