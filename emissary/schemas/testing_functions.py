"""Testing functions, and trying them."""

import keyword
from typing import Annotated, Self

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from emissary.judges import ANSWER_ALONE, Judge, checked_template
from emissary.metric_names import METRIC_NAMES
from emissary.schemas.fields import LEFT_OUT, Lenient, Reference, UnixTime

MAX_CONTENT_BYTES = 64 * 1024
SHIPPED_SUFFIX = "_shared"
_ARCHIVES = (
    ".whl",
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz",
    ".tar.xz",
    ".txz",
    ".tlz",
    ".tar.lz",
    ".tar.lzma",
)
"""Ends of names that pip takes for those of files."""
_COLUMNS = frozenset(
    {
        *("input", "output", "input_text", "expected_output", "predicted_output", "probabilities", "errors"),
        *("checkpoint", "is_best", "best", "train_loss", "test_loss", "created_at"),
        *METRIC_NAMES,
    }
)
"""Columns of the tables of results and checkpoints, in which each function has a column of its name."""


Text = Annotated[str, Field(strict=True)]


def _function_name(value: str) -> str:
    if keyword.iskeyword(value) or value in _COLUMNS:
        raise ValueError(f"must not be {value!r}, which means something else already")
    if value.endswith(SHIPPED_SUFFIX):
        raise ValueError(f"must not end in {SHIPPED_SUFFIX!r}, as those that ship with the platform do")
    return value


def _source(value: str) -> str:
    size = len(value.encode())
    if size > MAX_CONTENT_BYTES:
        raise ValueError(f"must be at most {MAX_CONTENT_BYTES // 1024} KiB, not {size} bytes")
    if "\0" in value:
        raise ValueError("must not contain NUL characters")
    return value.removeprefix("\ufeff")  # as Python does of a file


def _template(value: str) -> str:
    return checked_template(_source(value))


def _requirement(value: str) -> str:
    try:
        requirement = Requirement(value)
    except InvalidRequirement:
        raise ValueError("must be a requirement such as 'rapidfuzz>=3', without options, paths or addresses") from None
    if requirement.name.lower().endswith(_ARCHIVES):
        raise ValueError(f"must name a package, not a file such as {requirement.name!r}")
    if requirement.url is not None:
        raise ValueError(f"must name versions of {requirement.name!r}, not an address")
    return value


FunctionName = Annotated[
    str,
    Field(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_]{0,99}$", description="Name of the Python function."),
    AfterValidator(_function_name),
]
Source = Annotated[
    str,
    Field(strict=True, min_length=1, description="Python source that defines the function; at most 64 KiB."),
    AfterValidator(_source),
]
Dependencies = Annotated[
    list[Annotated[str, Field(strict=True, max_length=200), AfterValidator(_requirement)]],
    Field(max_length=16, description="pip requirements, installed from wheels.", examples=[["rapidfuzz>=3"]]),
]


class TestingRow(BaseModel):
    """What a testing function is called with."""

    __test__ = False  # pytest takes classes named Test… for tests

    input_text: Text
    expected_output: Text
    predicted_output: Text


_SAMPLE = TestingRow(input_text="Say red.", expected_output="red", predicted_output="red")


class JudgeDefinition(BaseModel):
    """A deployment for classification or regression that scores answers: a label's probability, or its number."""

    model_config = ConfigDict(from_attributes=True)

    deployment_id: Reference = Field(description="Id or name of a deployment; its id is kept.")
    label: Text | None = Field(
        default=None, description="Of a classification, the label whose probability is the score; of a regression none."
    )
    input: Annotated[Text, AfterValidator(_template)] = Field(
        default=ANSWER_ALONE,
        description="What the deployment reads: text with {input_text}, {expected_output} and {predicted_output}.",
        examples=["{input_text}\n\n{predicted_output}"],
    )

    def judge(self) -> Judge:
        """It, as it is asked."""
        return Judge(**self.model_dump())


class _Definition(Lenient):
    content: Source | None = None
    dependencies: Dependencies = Field(default=[])
    sample: TestingRow = Field(default=_SAMPLE, description="The row that the function is tried on; it is not kept.")
    judge: JudgeDefinition | None = Field(
        default=None, description="A deployment that scores instead; then neither content, dependencies nor sample."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.content is None) == (self.judge is None):
            raise ValueError("give either content or judge")
        if self.judge is not None and (self.dependencies or "sample" in self.model_fields_set):
            raise ValueError("dependencies and sample are for content; leave them out where there is a judge")
        return self


class TestingFunctionCreate(_Definition):
    """POST /v1/testing-functions: `def name(input_text: str, expected_output: str, predicted_output: str) -> float`,
    or a judge.
    """

    __test__ = False

    name: FunctionName


class TestingFunctionUpdate(_Definition):
    """PUT /v1/testing-functions/{name}: the function anew."""

    __test__ = False

    name: Text | None = Field(default=None, description="If given, the name that it has; a function is not renamed.")


class TestingFunctionSummary(BaseModel):
    """A testing function with its source, or with what its judge asks."""

    __test__ = False

    model_config = ConfigDict(from_attributes=True)
    name: str
    content: str | None = LEFT_OUT
    dependencies: list[str]
    judge: JudgeDefinition | None = LEFT_OUT
    higher_is_better: bool = Field(
        default=True,
        description="Whether the best checkpoint has the highest mean; false for an error, as of regression.",
    )
    read_only: bool = Field(default=False, description="It ships with the platform.")
    created_by: str | None = Field(default=None, description="Who added it; null where it ships.")
    created_at: UnixTime | None = None
    updated_at: UnixTime | None = None


class TestingFunctionTry(BaseModel):
    """POST /v1/testing-functions/{name}/try: rows to call the function on."""

    __test__ = False

    rows: Annotated[list[TestingRow], Field(min_length=1, max_length=100)]


class TriedRow(BaseModel):
    """What the function said of one row: a score, or the error that it ended with."""

    score: float | None
    error: str | None
    traceback: str | None = Field(description="Where in the source the error was raised, its last 4,000 characters.")
    stdout: str = Field(description="What it printed, at most 2,000 characters.")
