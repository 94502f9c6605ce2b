"""The fork server, on real processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from emissary.settings import PROJECT_ROOT
from tests.jobs import until
from tests.orphans import adopting_orphans

WORKER = """
import pathlib, sys, time
from emissary.fork_starter import warm_up
warm_up(pathlib.Path(sys.argv[1]))
print("warm", flush=True)
time.sleep(600)
"""


def test_fork_server_ends_at_once_when_its_worker_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    popen = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
    with adopting_orphans(), popen as worker:  # whoever else adopted the server may take seconds to bury it
        assert worker.stdout is not None
        assert worker.stdout.readline() == "warm\n"
        (server,) = (child for child in psutil.Process(worker.pid).children() if "forkserver" in str(child.cmdline()))
        worker.kill()
        killed = time.monotonic()
        until(server.status, lambda status: status == psutil.STATUS_ZOMBIE, 20)
        assert time.monotonic() - killed < 2, "it took its libraries apart first"
        os.waitpid(server.pid, 0)
