"""``python -m relet.backends.commands`` is ``relet``."""

import sys

from . import main

sys.exit(main())
