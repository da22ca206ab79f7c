"""``python -m pgfleet.providers.local.keeper --folder STATE/NAME``: be the keeper, or its twin."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pgfleet.providers.local.keeper.pair import keep


def main() -> int:
    parser = argparse.ArgumentParser(prog="pgfleet.providers.local.keeper", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the fleet's state folder")
    return keep(parser.parse_args().folder.absolute())


if __name__ == "__main__":
    sys.exit(main())
