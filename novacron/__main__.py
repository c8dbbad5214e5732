"""``python -m novacron`` is ``novacron``."""

from __future__ import annotations

import sys

from novacron.cli import main

if __name__ == "__main__":
    sys.exit(main())
