"""``pgfleet init``: a commented file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgfleet.cli import view
from pgfleet.cli.options import DEFAULT_FILE
from pgfleet.errors import FileUnreadable, WouldOverwrite, WrongUsage


def init(
    context: typer.Context,
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="Where to write it; -f FILE says the same.", show_default=False),
    ] = None,
    example: Annotated[
        str, typer.Option("--example", metavar="NAME", help="smallest, existing, question-bank or question-bank-demo.")
    ] = "smallest",
) -> None:
    """Write a commented file to start from. Never overwrites one."""
    known = examples()
    if example not in known:
        raise WrongUsage(f"there is no example {example!r}", hint=f"--example {' | '.join(known)}")
    target = Path(path or context.obj.file)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(known[example].read_text(encoding="utf-8"))
    except FileExistsError:
        raise WouldOverwrite(f"{target} is there already", hint=f"pgfleet init other.yaml   or   rm {target}") from None
    except OSError as error:
        raise FileUnreadable(f"{target} cannot be written", seen=[str(error)]) from None
    if context.obj.json:
        view.document({"written": str(target), "example": example})
    else:
        named = "" if str(target) == DEFAULT_FILE else f"-f {target} "
        view.line(f"wrote {target} (example {example}); next: pgfleet {named}check")


def examples() -> dict[str, Path]:
    """The examples that come with the package, by name, the smallest first."""
    folder = Path(__file__).parents[2] / "spec" / "examples"
    found = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return dict(sorted(found.items(), key=lambda item: item[0] != "smallest"))
