"""Requests of /v1/embeddings, /v1/classification and /v1/regression; unknown fields are ignored."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from emissary.schemas.fields import Reference

Text = Annotated[str, Field(strict=True, min_length=1)]
MAX_INPUTS = 2048
Inputs = Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]


class _Request(BaseModel):
    model: Reference = Field(description="Name of a deployment; for embeddings also of a base model.")
    input: Inputs = Field(description=f"A text, or a list of at most {MAX_INPUTS} texts.")

    @property
    def texts(self) -> list[str]:
        """`input` as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class EmbeddingRequest(_Request):
    """POST /v1/embeddings: with `target`, two texts compared; without, embeddings as OpenAI's clients ask for them."""

    target: Text | None = Field(default=None, description="A text to compare `input` with, which is then one text.")
    cosine: bool = Field(default=True, strict=True, description="With `target`: return the cosine similarity.")
    manhattan: bool = Field(default=False, strict=True, description="With `target`: return the Manhattan distance.")
    euclidean: bool = Field(default=False, strict=True, description="With `target`: return the Euclidean distance.")
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="Without `target`: numbers, or the bytes of little-endian float32 as base64."
    )
    dimensions: Annotated[int, Field(strict=True)] | None = Field(
        default=None, description="Not supported: an embedding has the dimensions of its model."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.target is not None and not isinstance(self.input, str):
            raise ValueError("with a target, input must be one text")
        if self.dimensions is not None:
            raise ValueError("dimensions is not supported; an embedding has the dimensions of its model")
        return self


class ClassificationRequest(_Request):
    """POST /v1/classification."""

    data_format: Literal["logits", "probs"] = Field(
        default="logits", description="Raw scores, or probabilities: of one label in all, or of each label by itself."
    )


class RegressionRequest(_Request):
    """POST /v1/regression."""


class TokenCounts(BaseModel):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class PredictionCounts(TokenCounts):
    """The counts of a classification or regression, which generates none."""

    completion_tokens: int = 0
    prompt_token_details: str


class Embedding(BaseModel):
    """The embedding of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 where that was asked for.")


class EmbeddingsAnswer(BaseModel):
    """Embeddings in OpenAI's shape, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: TokenCounts


class Compared(BaseModel):
    """Two texts' embeddings, and the comparisons that were asked for."""

    input_embedding: list[float]
    target_embedding: list[float]
    cosine_score: float | None = None
    manhattan_distance: float | None = None
    euclidean_distance: float | None = None


class Comparison(BaseModel):
    """An input compared with a target."""

    id: str
    response: Compared
    model: str
    usage: TokenCounts


class Logits(BaseModel):
    """An input's raw score for each label."""

    index: int
    logits: dict[str, float]


class Probabilities(BaseModel):
    """An input's probability of each label."""

    index: int
    probs: dict[str, float]


class ClassificationAnswer(BaseModel):
    """Scores in the order of the inputs."""

    id: str
    model: str
    data: list[Logits | Probabilities]
    usage: PredictionCounts


class Number(BaseModel):
    """The number predicted for an input."""

    index: int
    logits: float


class RegressionAnswer(BaseModel):
    """Numbers in the order of the inputs."""

    id: str
    model: str
    data: list[Number]
    usage: PredictionCounts
