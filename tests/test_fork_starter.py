"""The fork server, on real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from emissary.settings import PROJECT_ROOT
from tests.jobs import until
from tests.orphans import adopting_orphans

WORKER = """
import multiprocessing, pathlib, sys
from emissary.fork_starter import warm_up
warm_up(pathlib.Path(sys.argv[1]))
print("warm", flush=True)
for _ in sys.stdin:
    told = "import os; print(os.getppid(), flush=True)"
    process = multiprocessing.get_context("forkserver").Process(target=exec, args=(told,))
    process.start()
    process.join()
"""


@contextmanager
def warm_worker(sockets: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process with a warm fork server, which starts a process for each line that it reads, and writes who forked it;
    and the fork server.
    """
    command = [sys.executable, "-c", WORKER, str(sockets)]
    popen = subprocess.Popen(command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with adopting_orphans(), popen as worker:  # whoever else adopted the server may take seconds to bury it
        assert worker.stdout is not None
        assert worker.stdout.readline() == "warm\n"
        (server,) = (child for child in psutil.Process(worker.pid).children() if "forkserver" in str(child.cmdline()))
        yield worker, server
        worker.kill()


def test_forked_process_does_not_run_the_workers_program_anew() -> None:
    """As `python -m emissary.worker` is it; with the parts of it that need a platform left out."""
    program = """
import multiprocessing, os, pathlib, runpy, tempfile, __main__
__main__.__spec__ = runpy._get_module_details("emissary.worker")[1]
from emissary.fork_starter import warm_up
import emissary.worker
with tempfile.TemporaryDirectory() as sockets:
    warm_up(pathlib.Path(sockets))
    process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    process.start()
    process.join()
    print(process.exitcode)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert found.stdout == "0\n"
    assert "RuntimeWarning" not in found.stderr
    assert "WarmWorker" not in found.stderr


def test_fork_server_that_is_told_to_end_with_its_worker_goes_on_for_the_runs(tmp_path: Path) -> None:
    with warm_worker(tmp_path) as (worker, server):
        assert worker.stdin is not None
        assert worker.stdout is not None
        server.terminate()
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert int(worker.stdout.readline()) == server.pid, "another one was started in its place"


def test_temporary_files_of_the_fork_server_lie_where_they_go_with_its_worker(tmp_path: Path) -> None:
    with warm_worker(tmp_path) as (worker, server):
        assert server.environ()["TMPDIR"] == str(tmp_path)
        assert psutil.Process(worker.pid).environ().get("TMPDIR") != str(tmp_path)


def test_fork_server_ends_at_once_when_its_worker_is_killed(tmp_path: Path) -> None:
    with warm_worker(tmp_path) as (worker, server):
        worker.kill()
        killed = time.monotonic()
        until(server.status, lambda status: status == psutil.STATUS_ZOMBIE, 20)
        assert time.monotonic() - killed < 2, "it took its libraries apart first"
        os.waitpid(server.pid, 0)
