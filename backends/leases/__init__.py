"""Leases: decide when a connection is taken, kept and given back, and do it."""
