"""Prefect's server is stopped, slow or failing: the API answers, and what it accepted is submitted later, once."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import httpx
import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from emissary.api.prefect_client import PATIENCE_SECONDS, PREFECT_AWAY
from tests.api.backends import Backends
from tests.api.prefect_proxy import Mood, PrefectProxy, proxy_of
from tests.api.refusals import envelope
from tests.jobs import until

# Processes are killed, and the rest waits until that is noticed.
pytestmark = pytest.mark.acceptance

# A request without Prefect takes the patience, and what it takes with it, on a busy machine.
SOON = PATIENCE_SECONDS + 4
Outage = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def proxy(backends: Backends) -> Iterator[PrefectProxy]:
    """The API reaches Prefect through a proxy."""
    with proxy_of(backends.prefect_url) as proxy, temporary_settings({PREFECT_API_URL: proxy.api_url}):
        yield proxy


@contextmanager
def stopped(backends: Backends) -> Iterator[None]:
    process = backends.prefect_server.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def killed(backends: Backends) -> Iterator[None]:
    """The server is killed, and at the end of the block up again, as its supervisor sees to."""
    process = backends.prefect_server.process
    assert process is not None
    process.kill()
    process.wait()
    yield
    until(lambda: is_up(backends), bool)


def is_up(backends: Backends) -> bool:
    try:
        return httpx.get(f"{backends.prefect_url}/health", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(params=["error", "locked", "slow", "late", "stopped", "killed"])
def outage(request: pytest.FixtureRequest, backends: Backends, proxy: PrefectProxy) -> Outage:
    mood: Mood = request.param
    by_process = {"stopped": stopped, "killed": killed}
    return partial(by_process[mood], backends) if mood in by_process else partial(proxy.being, mood)


@contextmanager
def soon() -> Iterator[None]:
    """The block takes no longer than somebody who waits for it likes."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SOON


def runs_of(backends: Backends, path: str) -> int:
    named = FlowRunFilter(name=FlowRunFilterName(any_=[path.rpartition("/")[2]]))
    return len(backends.prefect(lambda client: client.read_flow_runs(flow_run_filter=named)))


def swept(backends: Backends) -> bool:
    try:
        backends.sweep()
    except PREFECT_AWAY:
        return False
    return True


def test_job_is_accepted_and_submitted_once_when_prefect_is_back(
    backends: Backends, proxy: PrefectProxy, outage: Outage
) -> None:
    ready = backends.new_job()
    body = backends.request("GET", ready).json()
    wanted = {"base_model": body["base_model"], "train_dataset_id": body["train_dataset"]["id"]}
    with outage():
        with soon():
            made = backends.request("POST", ready.rpartition("/")[0], json=wanted)
        assert made.status_code == 201, made.text
        path = f"{ready.rpartition('/')[0]}/{made.json()['id']}"
        with soon():
            assert backends.request("GET", path).json()["status"] == "Pending"
        with soon():
            envelope_of_health = backends.request("GET", "/healthz")
        assert envelope_of_health.status_code == 503
        assert not swept(backends)
    until(lambda: swept(backends) and backends.job(path).flow_run_id is not None, bool, 60)
    assert runs_of(backends, path) == 1
    backends.sweep()
    assert runs_of(backends, path) == 1
    assert backends.job(path).status == "Pending"


def test_job_is_cancelled_at_once_and_its_run_when_prefect_is_back(
    backends: Backends, proxy: PrefectProxy, outage: Outage
) -> None:
    path = backends.new_job()
    run_id = backends.run_id(path)
    backends.put(run_id, Running())
    backends.sweep()
    with outage():
        with soon():
            assert backends.request("POST", f"{path}/cancel").status_code == 204
        assert backends.request("GET", path).json()["status"] == "Cancelled"
        envelope(backends.request("POST", f"{path}/cancel"), 400, "invalid_input")
    until(lambda: swept(backends) and backends.state(run_id).type, lambda found: found == StateType.CANCELLING, 60)
    assert backends.events(path) == ["queued", "cancelled"]
