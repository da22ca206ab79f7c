"""Approved texts: each is a file under ``expected/``, read in review like code.

``PGFLEET_WRITE_GOLDEN=1 script/test tests/golden`` writes them anew; ``git diff`` then shows what changed, and a person agrees
to it or not.
"""

from __future__ import annotations

import os
from pathlib import Path

EXPECTED = Path(__file__).with_name("expected")
WRITE = "PGFLEET_WRITE_GOLDEN"


def approve(name: str, text: str) -> None:
    """``text`` is what ``expected/NAME`` holds."""
    path = EXPECTED / name
    if os.environ.get(WRITE) == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"expected/{name} is not there: {WRITE}=1 script/test tests/golden"
    assert text == path.read_text(), f"expected/{name} is another: {WRITE}=1 script/test tests/golden, then read git diff"
