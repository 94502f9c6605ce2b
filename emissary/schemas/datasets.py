"""Datasets: uploaded files, validated row by row."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from emissary.schemas.fields import UnixTime


class DatasetSummary(BaseModel):
    """A dataset in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    created_at: UnixTime
    is_uploaded: bool = True
    is_profiled: bool


class DatasetDetail(DatasetSummary):
    """A dataset with what its validation and its profile found, and links to its bytes and plots that expire."""

    dataset_download_url: str
    upload_by: str
    updated_at: UnixTime
    compatible_task_types: list[str]
    profile: dict[str, Any] = Field(
        description="What validation found; once `is_profiled`, also fields, lengths, near duplicates and `plots`."
    )
    profile_status: str = Field(description="Of the flow run that makes the profile; the dataset can be used anyhow.")
    profile_error: str | None = Field(description="Why there is no (newer) profile.")
