"""Dataset files that come in parts."""

from typing import Annotated

from pydantic import BaseModel, Field

from emissary.data.rows import OnInvalid, TaskType
from emissary.schemas.fields import Name, UnixTime

ON_INVALID = "One row that cannot be used refuses the file; with `skip` such rows are left out."
TASK_TYPE = "What every row must fit, such as a number in every row for regression; default what most rows fit."


class UploadCreate(BaseModel):
    """A file that will come."""

    file_name: Name = Field(
        description="Name of the file; its extension says the format: .jsonl, .json, .csv, .tsv, .parquet, "
        "or one of them with .gz or .zst."
    )
    bytes: Annotated[int, Field(strict=True, ge=1, lt=2**53)] = Field(description="Size of the file.")
    name: Name | None = Field(default=None, description="Name of the dataset; default the file's.")
    on_invalid: OnInvalid = Field(default="refuse", description=ON_INVALID)
    task_type: TaskType | None = Field(default=None, description=TASK_TYPE)


class UploadPart(BaseModel):
    """One part of the file: bytes (number - 1) · part_bytes and the following."""

    number: int
    bytes: int
    arrived: bool
    url: str | None = Field(description="Where to PUT the part, without a key; null once it has arrived.")


class UploadDetail(BaseModel):
    """A file that comes in parts."""

    id: str
    name: str
    file_name: str
    bytes: int
    part_bytes: int = Field(description="Bytes of each part; the last may be shorter.")
    parts: list[UploadPart]
    dataset_id: str | None = Field(description="The dataset it became; null until it is complete.")
    refused: str | None = Field(description="Why the file cannot be used; null unless it was refused.")
    on_invalid: OnInvalid = Field(description=ON_INVALID)
    task_type: TaskType | None = Field(description=TASK_TYPE)
    created_at: UnixTime
    expires_at: UnixTime = Field(description="When the links end, and what has arrived is removed unless complete.")
