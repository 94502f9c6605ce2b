"""Runs that should not go on: whose process is dead, that nobody wants any more, or that are over their time limit.

Only the sweep calls this, so one API process at a time. A live process beats its row's lease every few seconds; one
that has not been seen to for a while is taken for dead (`silences.py`).
"""

import itertools
import logging
from collections.abc import Hashable, Iterable
from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed, Failed, Scheduled
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api.ending import CANCELLED, end_run
from emissary.api.prefect_client import POOLS, TAG, refusal_logged
from emissary.api.projection import LIVE
from emissary.api.silences import Silences
from emissary.store import job_runs, leases
from emissary.store.database import transaction
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Deployment, FlowBacked, TrainingJob

logger = logging.getLogger(__name__)

SILENT_SECONDS = {StateType.RUNNING: 20.0, StateType.CANCELLING: 20.0, StateType.PENDING: 25.0}
"""How long a run in this state may show no sign of life; a look every two seconds comes on top."""
UNREGISTERED_SECONDS = 60.0
"""How long a run may take until it has registered the row that it works for, and takes its lease."""
CANCEL_SECONDS = 2.0
"""How long a worker has to end a cancelled run before the run's process is to end by itself."""
LIVED_SECONDS = 600.0
"""How long a run is to live after a crash for that to be no longer in a row with the next one."""
OVERDUE_GRACE = timedelta(seconds=60)
"""How long a run has to end itself after its time limit."""
_PAGE = 200  # as many runs as Prefect's API gives at once
_WORKS_FOR: dict[str, type[FlowBacked]] = {
    "training_job_id": TrainingJob,
    "deployment_id": Deployment,
    "pipeline_run_id": PipelineRun,
}
"""Parameters that name the row a run is for. (A run for an engine or a dataset looks itself whether that is
another's.)"""


async def end_what_should_not_run(client: PrefectClient, silences: Silences) -> None:
    """Look at every run that has a process, or should have. Raises what `PREFECT_AWAY` names."""
    found = await _unfinished(client)
    async with transaction() as session:
        rows = await rows_of(session, found)
        runs = {run_id: run for run_id, run in found.items() if run_id in rows or is_ours(run[0])}
        beats = await leases.beats(session, [row.id for row in rows.values()])
        late = await job_runs.overdue(session, list(runs), OVERDUE_GRACE)
        unnamed = [run for run_id, (run, _) in runs.items() if run_id not in rows]
        orphans = {run.id for run in unnamed if not _says_itself(run) and await is_orphan(session, run)}
    signs: dict[UUID, Hashable] = {}
    holding = set()
    for run_id, (_, state) in runs.items():
        row = rows.get(run_id)
        beat = beats.get(row.id) if row is not None else None
        if beat is not None and beat.flow_run_id == run_id:
            holding.add(run_id)
        signs[run_id] = (state.id, beat.beats if beat is not None and run_id in holding else None)
        signs[state.id] = state.id
    unchanged = silences.look(signs)
    for run_id, (_, state) in runs.items():
        row, in_state = rows.get(run_id), unchanged[state.id]
        unwanted = run_id in orphans or (row is not None and row.status in CANCELLED.get(type(row), ()))
        with refusal_logged(run_id):
            if unchanged[run_id] >= (patience := _patience(state, row)):
                await _force(client, run_id, state, row, _dead(state, patience))
            elif state.type == StateType.CANCELLING:
                if run_id in holding and in_state >= CANCEL_SECONDS:
                    await _force(client, run_id, state, row, Cancelled(message="No worker ended it; it ends itself."))
            elif unwanted:
                await end_run(client, run_id)
            elif run_id in late and state.type == StateType.RUNNING:
                await _force(client, run_id, state, row, timed_out(late[run_id]))
            elif row is not None and row.crashes and state.type == StateType.RUNNING and in_state >= LIVED_SECONDS:
                await _forget_crashes(row)


def timed_out(limit: int) -> State:
    """The state of a job's run that took longer than its `limit` in seconds."""
    sentence = f"The job took longer than its timeout_seconds, {limit}. Resume it: it goes on, with that time anew."
    return Failed(name="TimedOut", message=sentence)


async def is_still(client: PrefectClient, flow_run_id: UUID, state: State) -> bool:
    """Whether the run has come into no other state since it was seen in `state`."""
    now = (await client.read_flow_run(flow_run_id)).state
    return now is not None and now.id == state.id


async def _unfinished(client: PrefectClient) -> dict[UUID, tuple[FlowRun, State]]:
    having = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(SILENT_SECONDS))))
    found: dict[UUID, tuple[FlowRun, State]] = {}
    for offset in itertools.count(0, _PAGE):
        page = await client.read_flow_runs(flow_run_filter=having, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset)
        found.update({run.id: (run, run.state) for run in page if run.state is not None})
        if len(page) < _PAGE:
            break
    return found


async def rows_of(session: AsyncSession, run_ids: Iterable[UUID]) -> dict[UUID, FlowBacked]:
    """The rows whose runs these are; a run of none is left out."""
    found: dict[UUID, FlowBacked] = {}
    for kind in LIVE:
        rows = await session.scalars(select(kind).where(kind.flow_run_id.in_(list(run_ids))))
        found.update({row.flow_run_id: row for row in rows if row.flow_run_id is not None})
    return found


async def is_orphan(session: AsyncSession, run: FlowRun) -> bool:
    """Whether a run that no row names was made for a row that is gone, cancelled, or another run's by now."""
    if (dataset_id := run.parameters.get("dataset_id")) is not None:
        return await session.get(Dataset, dataset_id) is None
    for parameter, kind in _WORKS_FOR.items():
        if (row_id := run.parameters.get(parameter)) is not None:
            row = await session.get(kind, row_id)
            return row is None or row.flow_run_id is not None or row.status in CANCELLED[kind]
    return False


def _says_itself(run: FlowRun) -> bool:
    """Whether it is a profile's that somebody started in Prefect, perhaps with an id that is none: it then fails with
    its own sentence. Those of `submit` have the row's id in their key.
    """
    dataset_id = run.parameters.get("dataset_id")
    return dataset_id is not None and not (run.idempotency_key or "").startswith(f"{dataset_id}:")


def is_ours(run: FlowRun) -> bool:
    """Whether it is of one of the platform's flows, not of somebody else's in the same work pool."""
    return run.work_pool_name in POOLS and TAG in run.tags


def _patience(state: State, row: FlowBacked | None) -> float:
    return UNREGISTERED_SECONDS if row is None and state.type == StateType.RUNNING else SILENT_SECONDS[state.type]


def _dead(state: State, seconds: float) -> State:
    if state.type == StateType.CANCELLING:
        return Cancelled(message="Its process has shown no sign of life since it was cancelled.")
    if state.type == StateType.PENDING:
        return Scheduled(name="AwaitingRetry", message="A worker took it on and did not start it.")
    return Crashed(message=f"Its process has shown no sign of life for {seconds:.0f} seconds, so it is taken for dead.")


async def _force(client: PrefectClient, flow_run_id: UUID, state: State, row: FlowBacked | None, then: State) -> None:
    """Put a run that is still in `state` into `then`, and take its lease away, lest its process lives after all.

    Prefect's own rules apply, so a run that ended in this moment stays as it ended.
    """
    if not await is_still(client, flow_run_id, state):
        return
    if row is not None:
        async with transaction() as session:
            await leases.revoke(session, row.id)
    logger.warning("The run %s is put from %s to %s: %s", flow_run_id, state.name, then.name, then.message)
    await client.set_flow_run_state(flow_run_id, then)


async def _forget_crashes(row: FlowBacked) -> None:
    kind = type(row)
    async with transaction() as session:
        mine = update(kind).where(kind.id == row.id, kind.attempt == row.attempt, kind.crashes == row.crashes)
        await session.execute(mine.values(crashes=0))
