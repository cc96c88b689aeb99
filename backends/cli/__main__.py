"""``python -m relet.backends.cli`` is ``relet``."""

import sys

from . import main

sys.exit(main())
