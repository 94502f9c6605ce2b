"""Rows of an uploaded file that cannot be used."""

from collections.abc import Sequence

from pydantic import BaseModel

from emissary.errors import InvalidInput

SHOWN = 100


class Problem(BaseModel):
    """Why a row cannot be used."""

    line: int
    """The line of the file on which the row begins; in a JSON array and in Parquet, the row's number. From 1."""
    reason: str


class UnusableRows(InvalidInput):
    """A dataset is refused for some of its rows; says which and why."""

    def __init__(self, sentence: str, problems: Sequence[Problem] = (), count: int = 0) -> None:
        super().__init__(sentence)
        self.details = {"problems": [problem.model_dump() for problem in problems], "problem_count": count}
