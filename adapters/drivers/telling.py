"""Deprecated: use `relet.adapters.drivers.facts`."""

from relet.core.deprecated import moved

__getattr__ = moved(__name__, {"facts": "relet.adapters.drivers.facts:facts"})
