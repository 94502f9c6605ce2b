"""The testing functions that ship with the platform: the files of `emissary/testing_functions/`.

Each file defines one public function, named like the file. They are read as text and run in the sandbox, as
everybody's are; nothing imports them. What they depend on, the platform itself is installed with.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from emissary.data.rows import TASK_TYPES, TaskType
from emissary.errors import InvalidInput

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
_TEXTS: tuple[TaskType, ...] = ("text-generation",)
_NUMBERS: tuple[TaskType, ...] = ("regression", "embedding", "text-generation")
_MADE_FOR: dict[str, tuple[TaskType, ...]] = {
    "chrf_shared": _TEXTS,
    "code_tests_shared": _TEXTS,
    "cosine_closeness_shared": ("embedding",),
    "exact_match_shared": ("text-generation", "classification", "regression"),
    "json_schema_shared": _TEXTS,
    "length_closeness_shared": _TEXTS,
    "numeric_answer_shared": _TEXTS,
    "regex_match_shared": _TEXTS,
    "regression_mae_shared": ("regression",),
    "rouge_l_shared": _TEXTS,
    "sample_match_combined_metric_shared": ("classification",),
    "test_similarity_shared": _TEXTS,
}
"""As the README says; for other tasks most of them score something too."""
_SCORES_ONLY: dict[str, tuple[TaskType, ...]] = {
    "code_tests_shared": _TEXTS,
    "cosine_closeness_shared": _NUMBERS,
    "json_schema_shared": _TEXTS,
    "regression_mae_shared": _NUMBERS,
}
"""Those whose expected outputs are code, schemas or numbers, which the rows of other tasks never have."""
_RUNNING_CODE = frozenset({"code_tests_shared"})
LOWER_IS_BETTER = frozenset({"regression_mae_shared"})
"""Those that ship and score an error. Of an organization's own, a higher score is always the better one."""


def goodness(name: str, score: float) -> float:
    """A score of the testing function `name` so that more is better, also where it scores an error."""
    return -score if name in LOWER_IS_BETTER else score


def made_for(task_type: TaskType) -> list[str]:
    """Names of those that ship and are meant for the task type."""
    return [name for name in shipped() if task_type in _MADE_FOR[name]]


def require_fit(names: Sequence[str], task_type: TaskType, field: str = "test_functions") -> None:
    """Raises InvalidInput, naming the entry of `field`, for one that ships and would fail on every row of the task."""
    for position, name in enumerate(names):
        if task_type not in _SCORES_ONLY.get(name, TASK_TYPES):
            raise InvalidInput(
                f"{field}[{position}]: {name!r} scores {' and '.join(_MADE_FOR[name])}, and fails on every row of "
                f"{task_type}; take {' or '.join(made_for(task_type))}, or a function of your own."
            )


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
