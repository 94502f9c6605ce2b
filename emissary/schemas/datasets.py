"""Datasets: uploaded files, validated row by row."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from emissary.schemas.fields import UnixTime


class DatasetSummary(BaseModel):
    """A dataset in a list."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    created_at: UnixTime
    is_uploaded: bool = True


class DatasetDetail(DatasetSummary):
    """A dataset with what its validation found and a link to its bytes that expires."""

    dataset_download_url: str
    upload_by: str
    updated_at: UnixTime
    compatible_task_types: list[str]
    profile: dict[str, Any]
