"""The warm worker: a Prefect worker that forks each flow run from a process that has the heavy imports done.

Prefect's process worker starts a new interpreter per run, which imports torch and trl anew (8 to 13 s); a fork of a
prepared process is at its flow in under one. The standard library's fork server is that process.
"""

import asyncio
import multiprocessing
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import anyio.to_thread
import psutil
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, create_isolated_termination_scope
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables, ProcessWorkerResult

from emissary.processes import die_with_parent
from emissary.settings import PROJECT_ROOT

POOLS = ("training", "engines")
PRELOAD = ["torch", "transformers", "peft", "trl", "datasets", "prefect.flows", "emissary.store.tables"]


class WarmWorker(BaseWorker[ProcessJobConfiguration, ProcessVariables, ProcessWorkerResult]):
    """Runs flow runs as forks of a warm process on this machine."""

    type = "warm"
    job_configuration = ProcessJobConfiguration
    job_configuration_variables = ProcessVariables
    _description = "Execute flow runs as forks of a process that has torch, transformers, peft and trl imported."
    _display_name = "Warm process"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> ProcessWorkerResult:
        """Run `flow_run` in a forked process until it ends; Prefect's executor handles cancelling and crashes."""
        async with FlowRunExecutorContext() as context:
            starter = _ForkStarter(context, configuration)
            executor = context.create_executor(flow_run, starter, propose_submitting=False, hook_runner=_NoHooks())
            async with anyio.create_task_group() as group:
                results: list[Any] = []

                async def execute(*, task_status: anyio.abc.TaskStatus[ProcessHandle]) -> None:
                    results.append(await executor.submit(task_status=task_status))

                handle = await group.start(execute)
                if task_status is not None:
                    task_status.started(_identity(handle.pid))
        status = results[0].status_code if results and results[0] else 1
        return ProcessWorkerResult(status_code=status if status is not None else 1, identifier=_identity(handle.pid))


class _NoHooks:
    """Our flows declare no crash or cancellation hooks, so the worker need not import them to look."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Nothing to run."""

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Nothing to run."""


class _ForkStarter:
    """Starts one flow run; the interface that Prefect's executor expects of a starter."""

    def __init__(self, context: FlowRunExecutorContext, configuration: ProcessJobConfiguration) -> None:
        self._context = context
        self._configuration = configuration

    async def start(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Fork, tell the handle, wait for the end."""
        port, token = self._context.control_channel.register(flow_run.id)
        environment = (
            os.environ
            | {name: value for name, value in self._configuration.env.items() if value is not None}
            | get_current_settings().to_environment_variables(exclude_unset=True)
            | {
                "PREFECT__FLOW_RUN_ID": str(flow_run.id),
                "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
                "PREFECT__CONTROL_PORT": str(port),
                "PREFECT__CONTROL_TOKEN": token,
            }
        )
        context = multiprocessing.get_context("forkserver")
        process: ForkServerProcess = context.Process(target=_run_engine, args=(environment,), daemon=False)
        process.start()
        assert process.pid is not None
        task_status.started(ProcessHandle(process, create_isolated_termination_scope(process.pid)))  # type: ignore[arg-type]
        await anyio.wait_readable(process.sentinel)
        process.join()


def _run_engine(environment: dict[str, str]) -> None:
    """The forked process: becomes `python -m prefect.engine` for the flow run that `environment` names."""
    os.setsid()
    # The fork server ends when nobody holds this pipe. Were it held here, a run would outlive its worker.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    die_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT_ROOT)
    sys.path.insert(0, str(PROJECT_ROOT))
    sys.modules.pop("prefect.engine", None)  # it is run here as a program, not the imported module
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _identity(pid: int | None) -> str:
    """host:pid:start, which names a process beyond the reuse of its pid."""
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        started = 0.0
    return f"{socket.gethostname()}:{pid}:{started}"


def _is_dead_here(identity: str | None) -> bool:
    """Whether the process ran on this machine and no longer does."""
    host, _, rest = (identity or "").partition(":")
    if host != socket.gethostname():
        return False
    pid = int(rest.partition(":")[0])
    return _identity(pid) != identity


async def report_dead_runs(client: PrefectClient, pools: tuple[str, ...]) -> list[UUID]:
    """Tell Prefect of runs that died together with the worker that watched them; returns their ids."""
    unfinished = [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=list(pools))),
    )
    dead = [run for run in runs if _is_dead_here(run.infrastructure_pid)]
    for run in dead:
        cancelling = run.state is not None and run.state.type == StateType.CANCELLING
        message = "Its process died while no worker was watching."
        await client.set_flow_run_state(run.id, Cancelled() if cancelling else Crashed(message=message), force=True)
    return [run.id for run in dead]


def warm_up() -> None:
    """Start the fork server and have it do its imports, so that the first run does not wait for them."""
    forkserver.set_forkserver_preload(PRELOAD)
    first = multiprocessing.get_context("forkserver").Process(target=die_with_parent)
    first.start()
    first.join()


async def serve(pools: tuple[str, ...] = POOLS) -> None:
    """Work for `pools` until cancelled."""
    await anyio.to_thread.run_sync(warm_up)
    async with get_client() as client:
        await report_dead_runs(client, pools)
    async with anyio.create_task_group() as group:
        for pool in pools:
            worker = WarmWorker(
                work_pool_name=pool, name=f"{socket.gethostname()}-{pool}", create_pool_if_not_found=False
            )
            group.start_soon(worker.start)


async def _until_terminated() -> None:
    """Serve until SIGTERM, and then leave in order, so that the fork server's socket is removed."""
    serving = asyncio.ensure_future(serve())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    asyncio.run(_until_terminated())
