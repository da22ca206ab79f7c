"""The way in: a fleet, or every mistake of the file at once."""

from __future__ import annotations

from pgfleet.errors import SpecError
from pgfleet.spec.check import check
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.read import Loaded, read


def load(path: str, text: str) -> Fleet:
    """The fleet that ``text`` declares, checked.

    :param path: how messages call the file.
    :raises SpecError: with every mistake of text, structure and meaning; warnings alone do not raise.
    """
    return load_positioned(path, text).judged()


def load_positioned(path: str, text: str) -> Loaded:
    """Like :func:`load`, with where everything stands: for ``because`` lines that point into the file.

    :raises SpecError: as :func:`load`; then ``fleet`` of the result is never None.
    """
    loaded = read(path, text)
    diagnostics = check(loaded)
    if any(diagnostic.severity == "error" for diagnostic in diagnostics):
        raise SpecError(diagnostics)
    return loaded
