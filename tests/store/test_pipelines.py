"""Which objects a pipeline's run may name."""

import pytest

from emissary.errors import InvalidInput
from emissary.schemas.pipelines import PipelineCreate
from emissary.store.pipelines import object_keys

TRAIN = {"base_model": "SmolLM2-135M-Instruct", "test_functions": ["exact_match_shared"]}


def pipeline(**gather: str) -> PipelineCreate:
    return PipelineCreate.model_validate({"name": "named", "gather": gather, "train": TRAIN})


@pytest.mark.parametrize("uri", ["s3://lake", "s3://lake/", "s3://lake/tick", "s3://lake/tickets/"])
def test_objects_are_named_by_key_or_uri_within_the_prefix(uri: str) -> None:
    named = ["tickets/a b.jsonl", "s3://lake/tickets/c.csv", "s3://lake/tickets/a b.jsonl"]
    assert object_keys(pipeline(source="s3", uri=uri), named) == ["tickets/a b.jsonl", "tickets/c.csv"]


@pytest.mark.parametrize(
    "named", ["others/a.jsonl", "s3://lake/others/a.jsonl", "s3://lake2/tickets/a.jsonl", "ticket"]
)
def test_object_outside_the_prefix_is_refused(named: str) -> None:
    with pytest.raises(InvalidInput, match=r"^objects: '.*' is not within s3://lake/tickets/, the pipeline's source"):
        object_keys(pipeline(source="s3", uri="s3://lake/tickets/"), ["tickets/a.jsonl", named])


def test_bucket_whose_name_begins_alike_is_another() -> None:
    with pytest.raises(InvalidInput, match="is not within s3://lake, "):
        object_keys(pipeline(source="s3", uri="s3://lake"), ["s3://lake2/a.jsonl"])


def test_pipeline_without_a_bucket_has_no_objects() -> None:
    with pytest.raises(InvalidInput, match=r"^objects: the pipeline's source is hub, which has no objects"):
        object_keys(pipeline(source="hub", dataset="owner/name"), ["tickets/a.jsonl"])
