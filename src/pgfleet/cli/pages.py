"""The pages under docs/errors: one a code, made from the docstrings in errors/ and the tables of diagnostics.

``python -m pgfleet.cli.pages docs/errors`` writes them; a test says when that is due.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path

from pgfleet.errors import PgfleetError
from pgfleet.plan.migration_codes import CODES as MIGRATION_CODES
from pgfleet.spec.codes import CODES as SPEC_CODES

_MADE = "<!-- Made by `python -m pgfleet.cli.pages docs/errors`; edit the docstring or the table instead. -->"

#: What the letter of a code says, in the order of the index.
_LETTERS = {
    "C": "The command line (exit status 2)",
    "S": "The file (exit status 2)",
    "M": "A folder of migrations (exit status 2)",
    "U": "Unreachable: wait, or mend the network (exit status 3)",
    "F": "Refused: a person decides (exit status 4)",
    "E": "An engine said no (exit status 5)",
    "P": "Done, but the promise was not kept (exit status 6)",
    "B": "A mistake in pgfleet (exit status 70)",
}


def pages() -> dict[str, str]:
    """Every page's text, by file name; ``README.md`` is the index."""
    found: dict[str, tuple[str, str]] = {}
    for kind in _kinds(PgfleetError):
        title, text = _of_class(kind)
        if kind.code in found:
            raise AssertionError(f"{kind.code} is given twice")
        found[kind.code] = title, text
    for code in (*SPEC_CODES.values(), *MIGRATION_CODES.values()):
        body = f"{code.cause}\n\n**What to do.** {code.remedy}"
        found[code.code] = code.title, f"A mistake in the file (exit status 2).\n\n{body}"
        if code.code in MIGRATION_CODES:
            found[code.code] = code.title, f"A mistake in a migration (exit status 2).\n\n{body}"
    made = {f"{code}.md": f"# {code}: {title}\n\n{_MADE}\n\n{text}\n" for code, (title, text) in sorted(found.items())}
    return made | {"README.md": _index({code: title for code, (title, _) in sorted(found.items())})}


def write(folder: Path) -> list[str]:
    """Make ``folder`` hold exactly the pages; the names of those that changed."""
    wanted = pages()
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for path in sorted(folder.glob("*.md")):
        if path.name not in wanted:
            path.unlink()
            changed.append(path.name)
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(name)
    return sorted(changed)


def _kinds(root: type[PgfleetError]) -> Iterator[type[PgfleetError]]:
    """Every class below ``root`` that has a code of its own, each once."""
    seen: set[type[PgfleetError]] = set()
    waiting = [root]
    while waiting:
        kind = waiting.pop(0)
        for below in kind.__subclasses__():
            # Only what the package itself declares: a test may derive its own.
            if below not in seen and below.__module__.startswith("pgfleet."):
                seen.add(below)
                waiting.append(below)
                if "code" in below.__dict__:
                    yield below


def _of_class(kind: type[PgfleetError]) -> tuple[str, str]:
    text = re.split(r"^:\w+", getdoc(kind) or "", maxsplit=1, flags=re.MULTILINE)[0].strip()
    text = text.replace("``", "`")
    raised = f"Python raises it as `pgfleet.errors.{kind.__name__}`."
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).capitalize()
    return title, f"*{kind.kind}*, exit status {kind.exit_status}.\n\n{text}\n\n{raised}"


def _index(titles: dict[str, str]) -> str:
    lines = ["# Errors", "", _MADE, "", "Every message carries its code; every code has a page.", ""]
    for letter, heading in _LETTERS.items():
        ours = [code for code in titles if code.removeprefix("PGF-").startswith(letter)]
        if ours:
            lines += [f"## {heading}", "", *(f"- [{code}]({code}.md): {titles[code]}" for code in ours), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    for changed_name in write(Path(sys.argv[1])):
        sys.stdout.write(f"{changed_name}\n")
