"""What libyaml stumbled over, as a sentence with a hint: its own words are about tokens, and a reader's file has none."""

from __future__ import annotations

import json
import re

import yaml

from pgfleet.diagnostics import Diagnostic, Position
from pgfleet.spec import codes

#: Where nothing better is known.
COMPARE = "pgfleet init other.yaml   writes a good file to compare with"

_BARE_WORD = re.compile(r"\s*[^\s:#{}\[\],&*!|>'\"%@`-][^:{}\[\],]*")


def not_yaml(file: str, text: str, error: yaml.MarkedYAMLError) -> Diagnostic:
    """libyaml's complaint about ``text``."""
    mark = error.problem_mark or error.context_mark
    where = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
    problem = error.problem or "this is not YAML"
    message = f"not YAML: {problem}" + (f" ({error.context})" if error.context else "")
    return Diagnostic(codes.SYNTAX, where, message, _hint(error, problem, where, text.split("\n")))


def _hint(error: yaml.MarkedYAMLError, problem: str, where: Position, lines: list[str]) -> str:
    line = lines[where.line - 1] if where.line <= len(lines) else ""
    context = error.context or ""
    began = error.context_mark.line + 1 if error.context_mark else where.line
    if "\t" in line[: len(line) - len(line.lstrip())] or "tab" in problem:
        return "indent with spaces, not tabs:   expand -t 2 " + where.file
    if "quoted scalar" in context:
        return f"close the quotation mark that was opened in line {began}"
    if "flow sequence" in context or "flow mapping" in context:
        return f"close the {{ or [ that was opened in line {began}, and put a comma between items"
    if "flow node" in context:
        return "close the { or [ that was opened before"
    if "cannot start any token" in problem:
        return f'quote text that begins with % @ or `:   "{line[where.column - 1 :].strip()}"'
    if "mapping values are not allowed" in problem:
        return _colon(line, where, lines)
    if "block mapping" in context or "could not find expected ':'" in problem:
        return f"begin it in the same column as the keys beside it, with a colon: the keys there began in line {began}"
    return COMPARE


def _colon(line: str, where: Position, lines: list[str]) -> str:
    """A colon where no key can be: inside a value, or on a line that goes on with the one before it."""
    before = line[: where.column - 1]
    if not _BARE_WORD.fullmatch(before):
        key, _, value = line.partition(": ")
        return f'quote text that contains ": ":   {key.strip()}: {json.dumps(value.strip(), ensure_ascii=False)}'
    above = next((text for text in reversed(lines[: where.line - 1]) if text.strip()), "")
    if ":" not in above:
        return f"the line before it lacks a colon:   {above.strip()}:"
    return f"begin it in the same column as the keys beside it:   {line.strip()}"


def not_text(file: str, text: str) -> Diagnostic | None:
    """The first byte of ``text`` that is not UTF-8; None where all are.

    :param text: decoded with ``surrogateescape``: a byte that could not be decoded is a lone surrogate.
    """
    found = re.search("[\ud800-\udfff]", text)
    if found is None:
        return None
    byte = ord(found[0]) - 0xDC00
    before = text[: found.start()]
    where = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
    # What Windows' editors call Unicode begins with these two bytes, and half of its bytes are zero.
    coding = "UTF-16" if text.startswith(("\udcff\udcfe", "\udcfe\udcff")) else "WINDOWS-1252"
    hint = COMPARE if "\0" in text and coding != "UTF-16" else f"iconv -f {coding} -t UTF-8 {file} > other.yaml"
    return Diagnostic(codes.ENCODING, where, f"the byte 0x{byte:02x} is not UTF-8 text", hint)


def not_allowed(file: str, text: str, error: yaml.reader.ReaderError) -> Diagnostic:
    """A character that YAML forbids, such as NUL or escape."""
    before = text[: error.position] if isinstance(error.position, int) else ""
    where = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
    number = _code_point(error.character)
    hint = f'remove it, or write it inside double quotes:   "\\x{number:02x}"' if 0 < number < 0x100 else COMPARE
    return Diagnostic(codes.SYNTAX, where, f"the character #x{number:04x} may not be in the file", hint)


def _code_point(character: object) -> int:
    """YAML's reader tells the character as a number, a byte or a character."""
    if isinstance(character, int):
        return character
    if isinstance(character, bytes | str) and character:
        return ord(character[:1])
    return 0
