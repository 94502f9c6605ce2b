"""A worker where Python has no fork server: it starts flow runs as Prefect's own process worker does."""

import os
import subprocess
import sys

import pytest

from emissary import up
from emissary.settings import PROJECT_ROOT
from emissary.store.tables import Dataset
from tests.api.backends import started
from tests.api.refusals import GOOD
from tests.conftest import free_port
from tests.jobs import until

WORKER = """
import multiprocessing, runpy, sys
multiprocessing.get_all_start_methods = lambda: ["spawn"]
sys.argv[1:] = ["engines"]
runpy.run_module("emissary.worker", run_name="__main__", alter_sys=True)
"""


@pytest.mark.acceptance
def test_dataset_is_prepared_by_a_process_of_its_own_and_the_worker_ends_when_told() -> None:
    with started() as backends:
        project = backends.request("POST", "/v1/projects", json={"name": "no-fork"}).json()["id"]
        file = {"file": ("rows.jsonl", GOOD * 4)}
        dataset = backends.request("POST", f"/v1/projects/{project}/datasets", files=file).json()["id"]
        environment = os.environ | {
            "EMISSARY_DATABASE_URL": backends.database_url,
            "EMISSARY_HOME": str(backends.home),
            "PREFECT_API_URL": backends.prefect_url,
            **up.run_variables(backends.prefect_url),
        }
        with subprocess.Popen([sys.executable, "-c", WORKER], cwd=PROJECT_ROOT, env=environment) as worker:

            def prepared() -> str:
                backends.sweep()
                return backends.catalogue(lambda session: session.get_one(Dataset, dataset)).status

            try:
                assert until(prepared, lambda status: status not in ("Pending", "Running")) == "Success"
            finally:
                worker.terminate()
            assert worker.wait(20) == 0
        assert backends.request("GET", f"/v1/projects/{project}/datasets/{dataset}").json()["is_profiled"]


@pytest.mark.acceptance
def test_worker_waits_for_a_server_that_is_not_there_yet_and_ends_when_told() -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    environment = os.environ | {"PREFECT_API_URL": address, **up.run_variables(address)}
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stderr is not None
        assert any("Waiting for Prefect's server: All connection attempts failed" in line for line in worker.stderr)
        worker.terminate()
        assert worker.wait(20) == 0
