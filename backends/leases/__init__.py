"""Leases: when a connection is taken, kept and given back."""
