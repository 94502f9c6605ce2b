"""Starts flow runs as forks of a process that has the heavy imports done: Python's own fork server.

Each run gets a folder for its temporary files, which goes when the run has ended, however it ended.
"""

import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, create_isolated_termination_scope
from prefect.settings import get_current_settings

from emissary.processes import die_with_parent
from emissary.settings import PROJECT_ROOT

PRELOAD = [
    *(f"flows.{path.stem}" for path in sorted((PROJECT_ROOT / "flows").glob("[!_]*.py"))),
    # What those leave for later.
    "anyio._backends._asyncio",
    "prefect.main",
    "prefect.task_engine",
    "tasks.checkpoint_report",
    "tasks.score_summary",
    "emissary.store.local_artifacts",
    "uvicorn.protocols.http.h11_impl",
    "emissary.fork_server_end",
]


class ForkStarter:
    """Starts one flow run; the interface that Prefect's executor expects of a starter."""

    def __init__(self, context: FlowRunExecutorContext, variables: dict[str, str | None], scratch: Path) -> None:
        self._context, self._variables, self._scratch = context, variables, scratch

    async def start(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Fork, tell the handle, wait for the end."""
        port, token = self._context.control_channel.register(flow_run.id)
        folder = tempfile.mkdtemp(dir=self._scratch)
        environment = (
            os.environ
            | {name: value for name, value in self._variables.items() if value is not None}
            | _prefect_variables()
            | {
                "PREFECT__FLOW_RUN_ID": str(flow_run.id),
                "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
                "PREFECT__CONTROL_PORT": str(port),
                "PREFECT__CONTROL_TOKEN": token,
                "TMPDIR": folder,
            }
        )
        try:
            _ensure_server()
            context = multiprocessing.get_context("forkserver")
            process: ForkServerProcess = context.Process(target=_run_engine, args=(environment,), daemon=False)
            process.start()
            assert process.pid is not None
            child = _Child(process.pid)
            scope = create_isolated_termination_scope(process.pid)
            task_status.started(ProcessHandle(child, scope))  # type: ignore[arg-type]
            await anyio.wait_readable(process.sentinel)
            process.join()
            child.returncode = process.exitcode
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _prefect_variables() -> dict[str, str]:
    return get_current_settings().to_environment_variables(exclude_unset=True)


@dataclass
class _Child:
    """What Prefect's process handle reads of a process."""

    pid: int
    returncode: int | None = None


def _run_engine(environment: dict[str, str]) -> None:
    """The forked process: becomes `python -m prefect.engine` for the flow run that `environment` names."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the fork server ignores it
    # The fork server ends when nobody holds this pipe. Were it held here, a run would outlive its worker.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    die_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # read anew from TMPDIR
    os.chdir(PROJECT_ROOT)
    sys.path.insert(0, str(PROJECT_ROOT))
    sys.argv[1:] = []  # the worker's; Prefect would take the first for the run's id
    sys.modules.pop("prefect.engine", None)  # it is run here as a program, not the imported module
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def can_fork() -> bool:
    """Whether this system has Python's fork server."""
    return "forkserver" in multiprocessing.get_all_start_methods()


def warm_up(sockets: Path) -> None:
    """Start the fork server and have it do its imports, so that the first run does not wait for them.

    Its socket lies in the folder `sockets`, whose path is to be short, and so do its temporary files.
    """
    multiprocessing.current_process()._config["tempdir"] = str(sockets)  # type: ignore[attr-defined]
    forkserver.set_forkserver_preload(PRELOAD)
    _ensure_server()
    first = multiprocessing.get_context("forkserver").Process(target=die_with_parent)
    first.start()
    first.join()


def _ensure_server() -> None:
    """Start the fork server where it does not run. What libraries write when they are imported, as wandb does, lies
    beside its socket, and so is not left when it is killed.
    """
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(multiprocessing.current_process()._config["tempdir"])  # type: ignore[attr-defined]
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
