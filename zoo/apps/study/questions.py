"""What judges are asked. The wording of a two-picture comparison and of a larger one differs by a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import UnknownNameError


@dataclass(frozen=True)
class Question:
    """``right`` is which of two unmodified inputs, the photograph or the style picture, answers it by definition."""

    name: str
    of_two: str
    of_many: str
    right: Literal["content", "style"] | None

    def text(self, choices: int) -> str:
        """The question about that many pictures."""
        return self.of_two if choices == 2 else self.of_many


QUESTIONS = {
    question.name: question
    for question in (
        Question(
            "content",
            "Which picture keeps the content of the photograph better?",
            "Which picture keeps the content of the photograph best?",
            "content",
        ),
        Question(
            "style",
            "Which picture carries the style of the style picture better?",
            "Which picture carries the style of the style picture best?",
            "style",
        ),
        Question("prefer", "Which picture do you prefer?", "Which picture do you prefer?", None),
    )
}


def questions(names: tuple[str, ...]) -> list[Question]:
    """The questions of these names, in this order; UnknownNameError for one that there is not."""
    for name in names:
        if name not in QUESTIONS:
            raise UnknownNameError("question", name, QUESTIONS)
    return [QUESTIONS[name] for name in dict.fromkeys(names)]


def asked_in_checks(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the study's questions that have a right answer about unmodified inputs; of the content where none has.

    A study of preference alone then asks its checks another question than the rest, which is what an instructional
    manipulation check is: it must be read to be answered (Oppenheimer, Meyvis and Davidenko, "Instructional
    manipulation checks", Journal of Experimental Social Psychology 45, 2009).
    """
    return tuple(name for name in names if QUESTIONS[name].right) or ("content",)
