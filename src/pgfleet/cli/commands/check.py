"""``pgfleet check``: the file read as a promise. Every mistake at once, with the line it is in; then the arithmetic."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from pgfleet.cli import view
from pgfleet.spec.dsn import without_password

if TYPE_CHECKING:
    from pgfleet.diagnostics import Diagnostic
    from pgfleet.spec.fleet import Fleet
    from pgfleet.spec.shape import ShardShape

_COLOUR = {"error": "red", "warning": "yellow"}
_WIDTH = 110
_WORD = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s,:{}\[\]]+")


def check(
    context: typer.Context,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="Instead of -f FILE.", show_default=False)] = None,
) -> None:
    """Read the file as a promise: every mistake at once.

    Then what may be lost, shard by shard. Exit status 2 if there is a mistake."""
    from pgfleet.spec.check import check as judge
    from pgfleet.spec.read import read

    options = replace(context.obj, file=file) if file else context.obj
    loaded = read(options.file, options.text())
    diagnostics = judge(loaded)
    mistakes = sum(1 for diagnostic in diagnostics if diagnostic.severity == "error")
    fleet = None if mistakes else loaded.fleet
    if options.json:
        view.document(
            {
                "file": options.file,
                "fleet": fleet.fleet if fleet else None,
                "ok": not mistakes,
                "diagnostics": [diagnostic.to_json() for diagnostic in diagnostics],
                "etcd_regions": list(fleet.etcd_regions()) if fleet else [],
                "shards": _shards(fleet) if fleet else [],
            }
        )
    else:
        lines = _Lines(loaded.text)
        for diagnostic in diagnostics:
            view.line(_told(diagnostic, lines) + "\n")
        if fleet:
            _summary(fleet, len(diagnostics))
        else:
            view.line(_counted(mistakes, len(diagnostics) - mistakes))
    if mistakes:
        raise typer.Exit(2)


class _Lines:
    """The file's lines as they may be shown, each made so once: a line may be long, and hold a thousand mistakes."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._shown: dict[int, str] = {}

    def line(self, number: int) -> str:
        """Line ``number`` from 1; empty where there is none. Every character is where it was."""
        if number > len(self._lines):
            return ""
        if number not in self._shown:
            source = self._lines[number - 1].rstrip("\r").replace("\t", " ")
            # What a terminal would act upon, and what no text is, must not reach it.
            source = "".join(sign if sign.isprintable() else "�" for sign in source)
            self._shown[number] = without_password(source)
        return self._shown[number]


def _told(diagnostic: Diagnostic, lines: _Lines) -> str:
    """A diagnostic with the line that it is about and a mark under the place."""
    head = view.paint(f"{diagnostic.severity}[{diagnostic.code}]", _COLOUR[diagnostic.severity])
    told = [f"{head}: {view.paint(diagnostic.message, 'bold')}", f"  --> {diagnostic.position}"]
    line, column = diagnostic.position.line, diagnostic.position.column - 1
    if source := lines.line(line):
        word = _WORD.match(source, column)
        length = max(min(len(word[0]) if word else 1, _WIDTH // 2), 1)
        begin = max(0, min(column - _WIDTH // 2, len(source) - _WIDTH))
        number = f"{line:>4}"
        told.append(f"{view.paint(f'{number} |', 'dim')} {source[begin : begin + _WIDTH]}")
        mark = view.paint("^" * length, _COLOUR[diagnostic.severity])
        told.append(f"{view.paint('     |', 'dim')} {' ' * (column - begin)}{mark}")
    if diagnostic.hint:
        told.append(f"  {view.paint('HINT:', 'cyan')} {diagnostic.hint}")
    return "\n".join(told)


_COLUMNS = (
    "shard",
    "home",
    "voters",
    "readers",
    "a commit is on",
    "an election needs",
    "lost at once",
    "regions, any one of",
)


_GIVEN_COLUMNS = ("shard", "home", "servers", "in")


def _summary(fleet: Fleet, doubts: int) -> None:
    rows = []
    for shape in fleet.shapes():
        if not fleet.traits.provisions:
            rows.append([shape.name, shape.home, len(shape.nodes), ", ".join(dict.fromkeys(n.region for n in shape.nodes))])
            continue
        quorum = shape.quorum
        needs = f"{quorum.votes_needed} of {_some(quorum.replicas, 'vote')}"
        commit = _some(1 + shape.sync, "node")
        survived = ", ".join(_survived(fleet, shape)) or "none"
        readers = sum(shape.readers.values())
        rows.append([shape.name, shape.home, quorum.voters, readers, commit, needs, _lost(quorum.survives), survived])
    counts = (_some(len(fleet.shards), "shard"), _some(_nodes(fleet), "node"), _some(len(fleet.regions), "region"))
    if fleet.traits.provisions:
        view.table(f"{fleet.fleet}: {', '.join(counts)}; etcd in {_places(fleet.etcd_regions())}", _COLUMNS, rows)
    else:
        view.table(f"{fleet.fleet}: {', '.join(counts)}; given by DSNs", _GIVEN_COLUMNS, rows)
    view.line()
    view.line(f"ok, {_some(doubts, 'warning')}" if doubts else "ok")


def _places(regions: Sequence[str]) -> str:
    """Each region once; how many stand there where it is not one."""
    counted = Counter(regions)
    return ", ".join(region if number == 1 else f"{region} ({number} members)" for region, number in counted.items())


def _nodes(fleet: Fleet) -> int:
    return sum(len(shape.nodes) for shape in fleet.shapes())


def _survived(fleet: Fleet, shape: ShardShape) -> list[str]:
    """The regions with voters of which any one may be lost, wherever the primary is; none without etcd in three."""
    if len(set(fleet.etcd_regions())) < 3:
        return []
    quorum = shape.quorum
    return [r for r in shape.voters if quorum.survives_region(r, shape.voters, primary_in=r)]


def _shards(fleet: Fleet) -> list[dict[str, object]]:
    """The arithmetic of each shard, for programs; none of a quorum that is not ours."""
    if not fleet.traits.provisions:
        return [{"name": s.name, "home": s.home, "nodes": [str(node.name) for node in s.nodes]} for s in fleet.shapes()]
    return [
        {
            "name": shape.name,
            "home": shape.home,
            "voters": shape.voters,
            "readers": shape.readers,
            "sync": shape.sync,
            "votes_needed": shape.quorum.votes_needed,
            "survives_besides_the_primary": shape.quorum.survives,
            "regions_that_may_be_lost": _survived(fleet, shape),
            "nodes": [str(node.name) for node in shape.nodes],
            "sentence": shape.quorum.sentence(),
        }
        for shape in fleet.shapes()
    ]


def _lost(survives: int) -> str:
    if survives < 0:
        return "nothing"
    return "the primary" if survives == 0 else f"the primary + {_some(survives, 'voter')}"


def _counted(mistakes: int, doubts: int) -> str:
    return _some(mistakes, "mistake") + (f", {_some(doubts, 'warning')}" if doubts else "")


def _some(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
