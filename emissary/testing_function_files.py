"""The testing functions that ship with the platform: the files of `emissary/testing_functions/`.

Each file defines one public function, named like the file. They are read as text and run in the sandbox, as
everybody's are; nothing imports them. What they depend on, the platform itself is installed with.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).parent / "testing_functions"


class TestingFunction(BaseModel):
    """Source of a function `name(input_text: str, expected_output: str, predicted_output: str) -> float`."""

    __test__ = False  # pytest takes classes named Test… for tests

    model_config = ConfigDict(frozen=True)

    name: str
    content: str
    dependencies: list[str] = []
    higher_is_better: bool = True
    runs_answers: bool = False
    """It runs the answers as code: each has a process of its own, and one that ends or hangs it scores 0."""


_DEPENDENCIES = {
    "chrf_shared": ["sacrebleu>=2.6,<3"],
    "json_schema_shared": ["jsonschema>=4.26,<5"],
    "rouge_l_shared": ["rapidfuzz>=3.14,<4"],
}
_RUNNING_CODE = frozenset({"code_tests_shared"})
LOWER_IS_BETTER = frozenset({"regression_mae_shared"})
"""Those that ship and score an error. Of an organization's own, a higher score is always the better one."""


def goodness(name: str, score: float) -> float:
    """A score of the testing function `name` so that more is better, also where it scores an error."""
    return -score if name in LOWER_IS_BETTER else score


def is_trusted(name: str) -> bool:
    """Whether the testing function ships and runs no code of the rows: it may run where nothing can be isolated."""
    return name in shipped() and name not in _RUNNING_CODE


def shipped() -> dict[str, TestingFunction]:
    """The functions that ship, by name, in the order of their names."""
    return {
        file.stem: TestingFunction(
            name=file.stem,
            content=file.read_text(encoding="utf-8"),
            dependencies=_DEPENDENCIES.get(file.stem, []),
            higher_is_better=file.stem not in LOWER_IS_BETTER,
            runs_answers=file.stem in _RUNNING_CODE,
        )
        for file in sorted(FOLDER.glob("*.py"))
    }
