"""The Django layer of relet: engines, the wrapper and its cursor.

``"ENGINE": "relet.backends.<adapter>"`` works for every registered adapter.
"""

from . import engines
from .engines import build

__all__ = ["build"]

engines.install(__name__)
