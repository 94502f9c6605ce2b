"""The warm worker: a Prefect worker that forks each flow run from a process that has the heavy imports done.

Prefect's process worker starts a new interpreter per run, which imports torch and trl anew (8 to 13 s); a fork of a
prepared process is at its flow in under one. Where there is no fork server, runs are started as Prefect's does.

On SIGTERM the worker takes no more runs, has those that it runs save what they have, and gives them back.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import anyio
import anyio.abc
import anyio.to_thread
import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.events.schemas.events import RelatedResource
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_logger
from prefect.runner._control_channel import ControlSignalStatus
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.states import Cancelled, Crashed, Scheduled
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables, ProcessWorkerResult

from emissary import out_of_memory
from emissary.crash_reports import CrashReports
from emissary.fork_starter import ForkStarter, can_fork, warm_up
from emissary.process_folders import worker_folders
from emissary.processes import is_dead_here, process_identity
from emissary.settings import PROJECT_ROOT, settings

POOLS = ("training", "engines")
_WAITING = ("Scheduled", "AwaitingRetry", "Resuming")
_LEFT = ("Completed", "Skipped", "Failed", "Crashed", "Cancelled", "TimedOut", "Paused", "Suspended")
# Together below the 20 seconds after which whoever stops the worker kills it.
SAVE_SECONDS, END_SECONDS = 11.0, 5.0
_LOOK_SECONDS = 10.0
_AWAY = (httpx.TransportError, PrefectHTTPStatusError, TimeoutError)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Run:
    """A flow run whose process this worker watches."""

    flow_run: FlowRun
    context: FlowRunExecutorContext
    ended: anyio.Event = field(default_factory=anyio.Event)


class WarmWorker(BaseWorker[ProcessJobConfiguration, ProcessVariables, ProcessWorkerResult]):
    """Runs flow runs as forks of a warm process on this machine."""

    type = "warm"
    job_configuration = ProcessJobConfiguration
    job_configuration_variables = ProcessVariables
    _description = "Execute flow runs as forks of a process that has torch, transformers, peft and trl imported."
    _display_name = "Warm process"

    def __init__(self, scratch: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._scratch = scratch
        self._looking = anyio.Lock()
        self._claiming: set[UUID] = set()
        self._look = anyio.Event()
        self._looked_while_claiming = False
        self._running: set[_Run] = set()
        self._leaving = False
        self._prefect_is_away = False

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Prefect's round of looking for work; none is taken once the worker is to end, nor while it claims runs.

        Prefect does not count these yet, skips them where their rows are locked, and would list others over the limit.
        """
        async with self._looking:
            if self._leaving:
                return []
            if self._claiming & self._submitting_flow_run_ids:
                self._looked_while_claiming = True
                return []
            found = await self._outlive(super().get_and_submit_flow_runs()) or []
            self._claiming = {run.id for run in found}
            return found

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        # Prefect's client would ask again with pauses that double, and go on pausing for minutes once Prefect is back.
        with anyio.fail_after(_LOOK_SECONDS):
            return await super()._get_scheduled_flow_runs()

    async def _sync_and_initialize(self) -> None:
        await self._outlive(super()._sync_and_initialize())

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await self._outlive(super()._submit_run(flow_run))
        finally:
            self._claiming.discard(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def _cancel_run(self, flow_run_id: UUID) -> None:
        await self._outlive(super()._cancel_run(flow_run_id))

    async def _outlive(self, asking: Awaitable[T]) -> T | None:
        """What Prefect answers; None where it is away: its own loops would end the worker, and all runs with it."""
        try:
            answer = await asking
        except _AWAY as error:
            if not self._prefect_is_away:
                self._logger.warning(
                    "Prefect is away (%s); runs go on, new ones wait", str(error) or type(error).__name__
                )
            self._prefect_is_away = True
            return None
        self._prefect_is_away = False
        return answer

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        try:
            return bool(await super()._propose_pending_state(flow_run))
        finally:
            self._claiming.discard(flow_run.id)
            if self._looked_while_claiming and not self._claiming:
                self._looked_while_claiming = False
                self._look.set()

    async def look_when_told(self) -> None:
        """Look for work as soon as there may be some, for ever; Prefect's rounds by the clock go on beside it."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            while True:
                await self._look.wait()
                self._look = anyio.Event()
                try:
                    await self.get_and_submit_flow_runs()
                except Exception as error:
                    self._logger.warning("Could not look for work (%s); looking again by the clock", error)

    async def _listen(self) -> None:
        """Have somebody look when Prefect's event stream tells of a run that waits, or that leaves its place."""
        states = EventFilter(event=EventNameFilter(name=[f"prefect.flow-run.{state}" for state in _WAITING + _LEFT]))
        while True:
            try:
                async with get_events_subscriber(filter=states) as events:
                    async for event in events:
                        if any(self._is_my_pool(related) for related in event.related):
                            self._look.set()
            except Exception as error:
                self._logger.warning("Prefect's event stream broke off (%s); looking for work by the clock", error)
            self._look.set()
            await anyio.sleep(0.5)

    def _is_my_pool(self, resource: RelatedResource) -> bool:
        return resource.role == "work-pool" and resource.name == self._work_pool_name

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> ProcessWorkerResult:
        """Run `flow_run` in a process of its own until it ends; Prefect's executor handles cancelling and crashes."""
        started = _Started(task_status or anyio.TASK_STATUS_IGNORED)
        if not self._leaving:
            async with FlowRunExecutorContext() as context:
                run = _Run(flow_run, context)
                self._running.add(run)
                executor = context.create_executor(
                    flow_run, self._starter(context, configuration), propose_submitting=False, hook_runner=_NoHooks()
                )
                executor._state_proposer = CrashReports(context.client, lambda: started.identity, lambda: self._leaving)
                try:
                    await executor.submit(task_status=started)  # type: ignore[arg-type]
                finally:
                    run.ended.set()
                    self._running.discard(run)
        state = (await self.client.read_flow_run(flow_run.id)).state
        if state is not None and state.is_cancelling():
            # Cancelled before its process listened, which then left without a word.
            await self.client.set_flow_run_state(flow_run.id, Cancelled(), force=True)
        elif self._leaving:
            await self._give_back(flow_run, state)
        # Always 0: a crash is reported above, and would be reported again, over what was set meanwhile.
        return ProcessWorkerResult(status_code=0, identifier=started.identity)

    def _starter(
        self, context: FlowRunExecutorContext, configuration: ProcessJobConfiguration
    ) -> ForkStarter | EngineCommandStarter:
        if can_fork():
            return ForkStarter(context, configuration.env, self._scratch)
        return EngineCommandStarter(
            cwd=PROJECT_ROOT,
            env=configuration.env,
            control_channel=context.control_channel,
            isolate_process_group=True,
        )

    async def leave(self) -> None:
        """Take no more work; have every run save what it has and end, and give it back to the work pool."""
        self._leaving = True
        async with anyio.create_task_group() as group:
            for run in list(self._running):
                group.start_soon(self._end, run)

    async def _end(self, run: _Run) -> None:
        said = await run.context.control_channel.signal(run.flow_run.id, "reschedule")
        patience = 0.0 if said is ControlSignalStatus.NOT_ACKNOWLEDGED else SAVE_SECONDS
        with anyio.move_on_after(patience):
            await run.ended.wait()
        if not run.ended.is_set():
            await run.context.process_manager.kill(run.flow_run.id, grace_seconds=END_SECONDS)
        await run.ended.wait()

    async def _give_back(self, flow_run: FlowRun, state: State | None) -> None:
        """Have another worker go on with the run, which is in `state`, unless it has come to its end."""
        if state is not None and state.is_paused():
            return  # until somebody resumes it
        if state is None or not state.is_final() or state.is_crashed():
            message = "Its worker was stopped. The next one goes on from what was saved."
            again: State = Scheduled(name="AwaitingRetry", message=message)
            await self.client.set_flow_run_state(flow_run.id, again, force=True)


class _Started:
    """Tells Prefect's worker the process's identity once there is one."""

    identity = ""

    def __init__(self, told: anyio.abc.TaskStatus[str]) -> None:
        self._told = told

    def started(self, value: ProcessHandle) -> None:
        self.identity = process_identity(value.pid)
        self._told.started(self.identity)


class _NoHooks:
    """Our flows declare no crash or cancellation hooks, so the worker need not import them to look."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Nothing to run."""

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Nothing to run."""


async def report_dead_runs(client: PrefectClient, pools: tuple[str, ...]) -> list[UUID]:
    """Tell Prefect of runs that died together with the worker that watched them; returns their ids."""
    unfinished = [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=list(pools))),
    )
    dead = [run for run in runs if is_dead_here(run.infrastructure_pid)]
    for run in dead:
        cancelling = run.state is not None and run.state.type == StateType.CANCELLING
        message = "Its process died while no worker was watching."
        await client.set_flow_run_state(run.id, Cancelled() if cancelling else Crashed(message=message), force=True)
    return [run.id for run in dead]


async def wait_for_pools(client: PrefectClient, pools: tuple[str, ...], leaving: asyncio.Event) -> None:
    """Return when Prefect's server answers and knows the pools, or the worker is to leave. The log says what lacks."""
    said = ""
    while not leaving.is_set():
        try:
            missing = set(pools) - {pool.name for pool in await client.read_work_pools()}
            if not missing:
                return
            lacks = f"it has no work pool {', '.join(sorted(missing))}"
        except _AWAY as error:
            lacks = str(error) or type(error).__name__
        if lacks != said:
            get_logger("worker").warning("Waiting for Prefect's server: %s", lacks)
            said = lacks
        await anyio.sleep(0.5)


async def serve(pools: tuple[str, ...] = POOLS) -> None:
    """Work for `pools` until SIGTERM or Ctrl-C, and then leave in order."""
    leaving = asyncio.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wanted, leaving.set)
    with worker_folders(settings()) as folders:
        if can_fork():
            await anyio.to_thread.run_sync(warm_up, folders.sockets)
        async with get_client() as client:
            await wait_for_pools(client, pools, leaving)
            if leaving.is_set():
                return
            await report_dead_runs(client, pools)
        workers = [
            WarmWorker(
                folders.scratch,
                work_pool_name=pool,
                name=f"{socket.gethostname()}-{pool}",
                create_pool_if_not_found=False,
            )
            for pool in pools
        ]
        async with anyio.create_task_group() as group:
            group.start_soon(out_of_memory.watch)
            for worker in workers:
                group.start_soon(worker.start)
                group.start_soon(worker.look_when_told)
            await leaving.wait()
            async with anyio.create_task_group() as ending:
                for worker in workers:
                    ending.start_soon(worker.leave)
            group.cancel_scope.cancel()
