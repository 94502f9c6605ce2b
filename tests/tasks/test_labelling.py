"""Links from Prefect lead to where the API has the row."""

import re
from urllib.parse import urlsplit

import pytest

from emissary.api.app import create_app
from emissary.settings import settings
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, FlowBacked, TrainingJob
from tasks.labelling import link

ROWS: list[tuple[FlowBacked, str]] = [
    (TrainingJob(id="tr-1", project_id="ms-1"), "/v1/projects/{project_id}/training-jobs/{training_job_id}"),
    (Dataset(id="ds-1", project_id="ms-1"), "/v1/projects/{project_id}/datasets/{dataset_id}"),
    (Deployment(id="dp-1", project_id="ms-1"), "/v1/projects/{project_id}/deployments/{deployment_id}"),
    (Engine(id="engine-1"), "/v1/engines/{engine_id}"),
    (
        PipelineRun(id="pr-1", project_id="ms-1", pipeline_id="pl-1"),
        "/v1/projects/{project_id}/pipelines/{pipeline_id}/runs/{pipeline_run_id}",
    ),
]


@pytest.mark.parametrize(("row", "route"), ROWS, ids=[type(row).__name__ for row, _ in ROWS])
def test_link_is_answered_by_the_rows_own_operation(row: FlowBacked, route: str) -> None:
    address = link(row)
    assert address.startswith(f"{settings().api_url}/")
    answering = [
        path
        for path, operations in create_app().openapi()["paths"].items()
        if "get" in operations and re.fullmatch(re.sub("{[^}]*}", "[^/]+", path), urlsplit(address).path)
    ]
    assert answering == [route]
