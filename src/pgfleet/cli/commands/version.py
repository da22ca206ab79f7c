"""``pgfleet version``: which pgfleet, on which Python."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer

from pgfleet.cli import view


def version(context: typer.Context) -> None:
    """Which pgfleet this is, and on which Python it runs."""
    if context.obj.json:
        view.document({"pgfleet": pgfleet_version(), "python": platform.python_version()})
    else:
        view.line(text())


def text() -> str:
    return f"pgfleet {pgfleet_version()} on Python {platform.python_version()}"


def pgfleet_version() -> str:
    try:
        return installed("pgfleet")
    except PackageNotFoundError:
        return "(not installed: run from its source)"
