"""``python -m pgfleet`` is the command ``pgfleet``."""

from __future__ import annotations

import sys

from pgfleet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
