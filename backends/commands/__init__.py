"""The console script ``relet``."""
