"""retrain: gather data → train → compare with what is deployed → have it approved → deploy what is better → watch →
push → conclude, which notifies whoever has subscribed.
"""

from prefect import flow
from prefect.client.schemas.objects import State

from emissary.schemas.pipelines import PipelineRunCreate
from tasks.approving import refusal
from tasks.comparing import compare
from tasks.concluding import conclude, concluded
from tasks.gathering import gather
from tasks.promoting import promote, roll_back
from tasks.pushing import push_promoted
from tasks.registering import pipeline_run
from tasks.retraining import train, turn
from tasks.watching import watch


@flow(name="retrain")
async def retrain(
    pipeline_id: str, pipeline_run_id: str | None = None, request: PipelineRunCreate | None = None
) -> State:
    """Run a pipeline: train on what is new, and deploy it where it is better than what is deployed.

    Args:
        pipeline_id: The pipeline, such as `pl-…`.
        pipeline_run_id: An existing run, as the API passes it. Leave empty to begin one.
        request: What is different in the new run: the same fields as POST …/pipelines/{pipeline_id}/runs.
    """
    run = await pipeline_run(pipeline_id, pipeline_run_id, request)
    if end := await concluded(run):
        return end
    reason = await turn(run) or await gather(run)
    if reason:
        return await conclude(run, "Skipped", reason)
    job = await train(run)
    decision, reason = await compare(run, job)
    if not decision.promoted:
        return await conclude(run, "NotPromoted", reason)
    if refused := await refusal(run):
        return await conclude(run, "NotPromoted", refused)
    deployed = await promote(run, job, decision)
    watched, at_fault = await watch(run, decision)
    if at_fault:
        return await conclude(run, "RolledBack", f"{watched} {await roll_back(run, job, decision)}")
    pushed = await push_promoted(run, job)
    return await conclude(run, "Promoted", " ".join(filter(None, (reason, deployed, watched, pushed))))
