"""A pool that is a stack, and its adapter for relet."""
