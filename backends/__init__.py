"""The Django layer of relet: engines, the wrapper and its cursor.

``"ENGINE": "relet.backends.<adapter>"`` works for every registered adapter.
"""

from . import checks, engines
from .engines import build
from .session_state import SessionStateError, SessionStateWarning

__all__ = ["SessionStateError", "SessionStateWarning", "build"]

engines.install(__name__)
checks.install()
