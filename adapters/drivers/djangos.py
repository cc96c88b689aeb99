"""Deprecated: use `relet.adapters.drivers.default`."""

from relet.core.deprecated import moved

__getattr__ = moved(__name__, {"Driver": "relet.adapters.drivers.default:Driver"})
