"""How Prefect shows what a run works for, whoever started it: by its name and tags, and by a link to the API."""

from functools import partial
from uuid import UUID

from prefect import runtime
from prefect.artifacts import acreate_link_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from emissary.settings import settings
from emissary.store import flow_run_labels
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, Engine, FlowBacked, TrainingJob
from tasks.catalogue import in_catalogue
from tasks.reporting import report


def show_row(row: FlowBacked) -> None:
    """Have this flow run be named and tagged as those that the API submits for the row are, and link to the row."""
    report("The run's name and tags", partial(_label, row))
    key = f"api-{row.id}".lower().replace("_", "-")
    text = f"{row.id} in the API (with your key)"
    show = partial(acreate_link_artifact, link=link(row), link_text=row.id, key=key, description=text)
    report("The link to the API", show)


async def _label(row: FlowBacked) -> None:
    name, tags = flow_run_labels.name(row), set(await in_catalogue(flow_run_labels.tags, row))
    has = set(runtime.flow_run.tags)
    if runtime.flow_run.name == name and tags <= has:
        return  # the API submitted it
    async with get_client() as client:
        try:
            await client.update_flow_run(UUID(runtime.flow_run.get_id()), name=name, tags=sorted(has | tags))
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:  # else the run was deleted in Prefect, and will never be there again
                raise


def link(row: FlowBacked) -> str:
    """Where the API has the row."""
    match row:
        case Engine():
            path = f"engines/{row.id}"
        case TrainingJob():
            path = f"projects/{row.project_id}/training-jobs/{row.id}"
        case Dataset():
            path = f"projects/{row.project_id}/datasets/{row.id}"
        case Deployment():
            path = f"projects/{row.project_id}/deployments/{row.id}"
        case PipelineRun():
            path = f"projects/{row.project_id}/pipelines/{row.pipeline_id}/runs/{row.id}"
        case _:
            raise TypeError(f"{type(row).__name__} rows have no flow")
    return f"{settings().api_url}/v1/{path}"
