"""The Django layer of relet: engines, the wrapper and its cursor.

``"ENGINE": "relet.backends.<adapter>"`` works for every registered adapter.
"""

from .engines import build
from .install import install
from .leases.session_rules import SessionStateError, SessionStateWarning

__all__ = ["SessionStateError", "SessionStateWarning", "build"]

install(__name__)
