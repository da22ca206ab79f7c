"""What every test may ask for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: whether a change lands is not for chance. `--hypothesis-profile=explore` looks for others.
settings.register_profile("explore", derandomize=False)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def fleet_root() -> Iterator[Path]:
    """A fresh state folder that the engines' user can enter, removed afterwards.

    pytest's own ``tmp_path`` is closed to everybody else, but as root the engines run as another user. Its path is
    short, too: a Unix socket's may have 107 bytes.
    """
    root = Path(tempfile.mkdtemp(prefix="pgfleet-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)
