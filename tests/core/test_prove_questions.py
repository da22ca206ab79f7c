"""Generated questions, and questions from a file."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from pgfleet.errors import FileUnreadable
from pgfleet.prove.questions import generate, read_questions, subjects


@pytest.mark.parametrize("subject", subjects())
def test_thousands_per_subject_none_twice(subject: str) -> None:
    made = list(generate(subject, 5000))
    assert len({question.stem for question in made}) == 5000
    for question in made:
        assert question.subject == subject
        assert 0 <= question.answer < len(question.choices) == len(set(question.choices)) == 4
        assert 1 <= question.difficulty <= 5
        assert "{" not in question.stem


def test_the_same_seed_gives_the_same_questions() -> None:
    assert list(generate("PMP", 50, seed=7)) == list(generate("PMP", 50, seed=7))
    assert list(generate("PMP", 50, seed=7)) != list(generate("PMP", 50, seed=8))


def test_more_begin_like_fewer() -> None:
    assert list(generate("LSAT", 20)) == list(islice(generate("LSAT", 90), 20))


def test_the_answer_of_a_sum_is_right() -> None:
    products = [q for q in generate("Mathematics", 500) if "×" in q.stem and "remainder" not in q.stem]
    assert products
    for question in products:
        a, b = question.stem.split("What is ")[1].rstrip("?").split(" × ")
        assert question.choices[question.answer] == str(int(a) * int(b))


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


ROW: dict[str, object] = {"subject": "world", "stem": "Où est Oslo?", "choices": ["Norway", "Sweden"], "answer": 0}


def test_a_file_of_real_ones(tmp_path: Path) -> None:
    (question,) = read_questions(write(tmp_path / "q.jsonl.gz", [ROW, ROW]))
    assert (question.subject, question.choices, question.answer, question.difficulty) == (
        "world",
        ("Norway", "Sweden"),
        0,
        3,
    )


@pytest.mark.parametrize("wrong", [{"answer": 2}, {"choices": ["only"]}, {"stem": ""}, {"choices": 3}])
def test_a_line_that_is_no_question_is_named(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = write(tmp_path / "q.jsonl.gz", [ROW, ROW | wrong])
    with pytest.raises(FileUnreadable, match="line 2"):
        read_questions(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable):
        read_questions(tmp_path / "none.jsonl.gz")
