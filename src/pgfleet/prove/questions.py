"""Questions to fill a fleet with: generated, the same for the same seed, or read from a file of real ones."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.errors import FileUnreadable
from pgfleet.prove.subjects import PLACES, SUBJECTS, Subject, Sum

MEANS = ("What is meant by “{term}”?", "Which of these describes “{term}”?", "“{term}” comes up. What is it?")
NAMES = (
    "What is the word for {meaning}?",
    "Which term stands for {meaning}?",
    "Somebody describes {meaning}. What is it?",
)


@dataclass(frozen=True, slots=True)
class Question:
    """:param answer: index into ``choices`` from 0. :param difficulty: 1 (easy) to 5."""

    subject: str
    stem: str
    choices: tuple[str, ...]
    answer: int
    difficulty: int


def subjects() -> tuple[str, ...]:
    """What questions can be generated for."""
    return tuple(SUBJECTS)


def generate(subject: str, count: int, seed: int = 0) -> Iterator[Question]:
    """``count`` questions, no stem twice.

    :raises KeyError: nothing is known of that subject.
    """
    known = SUBJECTS[subject]
    chance = random.Random(f"{seed}/{subject}")
    stems: set[str] = set()
    while len(stems) < count:
        # Terms run out (places × terms × phrasings); sums do not, so what is a repetition is drawn again.
        question = _sum(subject, known, chance) if chance.random() < 0.5 else _term(subject, known, chance)
        if question.stem not in stems:
            stems.add(question.stem)
            yield question


def _term(subject: str, known: Subject, chance: random.Random) -> Question:
    terms = list(known.terms.items())
    picked = chance.sample(terms, 4)
    term, meaning = picked[0]
    by_name = chance.random() < 0.5
    asked = chance.choice(NAMES if by_name else MEANS).format(term=term, meaning=meaning)
    stem = f"{known.setting.format(place=chance.choice(PLACES))} {asked}"
    choices = [name if by_name else what for name, what in picked]
    return _shuffled(subject, stem, choices, chance.randint(1, 4), chance)


def _sum(subject: str, known: Subject, chance: random.Random) -> Question:
    asked: Sum = chance.choice(known.sums)
    a, b = chance.randint(3, 240), chance.randint(3, 96)
    right = asked.answer(a, b)
    stem = f"{known.setting.format(place=chance.choice(PLACES))} " + asked.text.format(a=a, b=b)
    wrong: set[int] = set()
    while len(wrong) < 3:
        wrong.add(right + chance.choice((-1, 1)) * chance.randint(1, max(9, abs(right) // 5)))
    choices = [f"{value} {asked.unit}".rstrip() for value in (right, *sorted(wrong))]
    return _shuffled(subject, stem, choices, chance.randint(2, 5), chance)


def _shuffled(subject: str, stem: str, choices: list[str], difficulty: int, chance: random.Random) -> Question:
    """The right choice is the first of ``choices``."""
    right = choices[0]
    chance.shuffle(choices)
    return Question(subject, stem, tuple(choices), choices.index(right), difficulty)


def read_questions(path: Path) -> list[Question]:
    """Real questions, one JSON object a line: ``subject``, ``stem``, ``choices``, ``answer`` (an index), gzip or plain.

    A question whose subject, stem and choices were there before is left out. ``difficulty`` is 3 where it is not said.

    :raises FileUnreadable: no such file, or a line that is no question; says which.
    """
    seen: dict[tuple[str, str, tuple[str, ...]], Question] = {}
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - told when a line is wrong
                if line.strip():
                    question = _question(json.loads(line))
                    seen.setdefault((question.subject, question.stem, question.choices), question)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FileUnreadable(f"{path} cannot be read", seen=[str(error)]) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FileUnreadable(f"line {number} of {path} is no question", seen=[repr(error)]) from None
    return list(seen.values())


def _question(raw: Any) -> Question:
    choices = tuple(str(choice) for choice in raw["choices"])
    question = Question(str(raw["subject"]), str(raw["stem"]), choices, int(raw["answer"]), int(raw.get("difficulty", 3)))
    if not question.subject or not question.stem or not 2 <= len(choices) <= 26:
        raise ValueError("a question has a subject, a stem and 2 to 26 choices")
    if not 0 <= question.answer < len(choices) or not 1 <= question.difficulty <= 5:
        raise ValueError("the answer is an index into the choices, the difficulty 1 to 5")
    return question


def by_subject(questions: Sequence[Question]) -> dict[str, list[Question]]:
    """In the order in which subjects first appear."""
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.subject, []).append(question)
    return found
