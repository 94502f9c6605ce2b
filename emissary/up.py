"""Starts the whole platform on this machine: database, Prefect server, flow deployments, API and worker."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from emissary import tracking
from emissary.errors import EmissaryError, InvalidInput
from emissary.processes import Supervisor, listening_socket, port_is_free
from emissary.secret_files import first_api_key
from emissary.settings import PROJECT_ROOT, Settings
from emissary.store.artifacts import open_store
from emissary.store.database import catalogue_server, catalogue_url, companion_database, dispose, migrate, transaction
from emissary.store.users import ensure_first_key

_READY_SECONDS = 180.0
_DEPLOY_TRIES = 2
Say = Callable[[str], None]


@dataclass(frozen=True)
class Platform:
    """Where a running platform is reached."""

    api_url: str
    prefect_url: str
    api_key: str = field(repr=False)


@contextmanager
def running(chosen: Settings, say: Say) -> Iterator[Platform]:
    """Run everything while the block runs; `say` is told of each step. Raises InvalidInput when a port is taken."""
    embedded_prefect = "PREFECT_API_URL" not in os.environ
    open_store(chosen).check()
    tracking.check(chosen, dict(os.environ))
    if embedded_prefect:
        _require_port(chosen.prefect_port)
    if chosen.sandbox == "none":
        say("EMISSARY_SANDBOX=none: testing functions can read this machine's files and use its network")
    say("PostgreSQL: starting")
    # The API's socket is held here: whoever connects while the API is restarted waits, and is not refused.
    with _api_listener(chosen) as listener, catalogue_server(chosen) as address:
        key = first_api_key(chosen).get_secret_value()
        migrate(address)
        environment = os.environ | _environment(chosen, address)
        supervisor = Supervisor(chosen.home / "logs", environment)
        with supervisor.keep():
            if embedded_prefect:
                say("Prefect server: starting")
                port = str(chosen.prefect_port)
                command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
                # To it the worker gives its runs back.
                supervisor.start("prefect", sys.executable, "-m", *command, outlives=True)
            say("Worker: starting, which imports torch meanwhile")
            supervisor.start("worker", sys.executable, "-m", "emissary.worker")
            asyncio.run(_make_key_valid(address, key))
            _wait(f"{chosen.prefect_api_url}/health", "Prefect's server")
            descriptor = listener.fileno()
            supervisor.start(
                "api", sys.executable, "-m", "emissary.api.server", str(descriptor), descriptors=(descriptor,)
            )
            say("Flows: applying deployments.yaml")
            with temporary_settings({PREFECT_API_URL: chosen.prefect_api_url}):
                asyncio.run(_apply_work_pools(chosen))
                asyncio.run(_register_blocks())
            for tracker in chosen.report_to:
                supervisor.start(f"tracking-{tracker}", sys.executable, "-m", "emissary.tracking", tracker)
            apply_flow_deployments(environment)
            _wait(f"{chosen.api_url}/healthz", "the platform")
            yield Platform(chosen.api_url, chosen.prefect_api_url.removesuffix("/api"), key)


def _api_listener(chosen: Settings) -> socket.socket:
    try:
        return listening_socket(chosen.host, chosen.port)
    except OSError as error:
        raise InvalidInput(
            f"The API cannot listen on {chosen.host} port {chosen.port} ({error.strerror}). End what uses the port, or "
            "set EMISSARY_PORT or EMISSARY_HOST."
        ) from error


def _require_port(port: int) -> None:
    if not port_is_free("127.0.0.1", port):
        raise InvalidInput(
            f"Port {port} is taken, so Prefect's server cannot listen there. End what uses it, or set "
            "EMISSARY_PREFECT_PORT."
        )


def _environment(chosen: Settings, address: str) -> dict[str, str]:
    prefect_database = companion_database(address, f"{catalogue_url(address).database}_prefect")
    # A relative folder is meant from where `emissary up` was called; flow runs have another working directory.
    artifacts = {"EMISSARY_ARTIFACTS": chosen.artifacts} if chosen.artifacts else {}
    return (
        artifacts
        | {
            "EMISSARY_HOME": str(chosen.home),
            "EMISSARY_DATABASE_URL": address,
            "PREFECT_API_URL": chosen.prefect_api_url,
            "PREFECT_HOME": str(chosen.home / "prefect"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": str(
                catalogue_url(prefect_database)
                .set(drivername="postgresql+asyncpg")
                .render_as_string(hide_password=False)
            ),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        }
        | run_variables(chosen.prefect_api_url)
    )


SAME_BYTES = {"MKL_CBWR": "AUTO", "MKL_DYNAMIC": "FALSE"}
"""Without these MKL promises the same bytes neither from run to run nor in as many threads each time."""


def run_variables(prefect_api_url: str) -> dict[str, str]:
    """What a worker's environment has beside where things are."""
    variables = {
        # Beside the event stream, which tells sooner. Each round costs Prefect's server some 20 ms of a core and pool.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLIENT_MAX_RETRIES": "8",
        # What Prefect's server answers while its database is away.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Threads that spin long while they wait starve a second model on the same cores (training beside an engine);
        # those that never spin take a third longer for a training step.
        "GOMP_SPINCOUNT": "1000",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        **SAME_BYTES,
    }
    if prefect_api_url.startswith("http://"):
        # Each of Prefect's clients reads what it trusts first, by http too, and a run makes ten. All the authorities
        # take 25 to 50 ms of a core.
        variables["PREFECT_API_SSL_CERT_FILE"] = str(PROJECT_ROOT / "emissary" / "trust_nobody.pem")
    return variables


async def _make_key_valid(address: str, key: str) -> None:
    from emissary.settings import settings

    settings().database_url = address
    async with transaction() as session:
        await ensure_first_key(session, key)
    await dispose()


async def _apply_work_pools(chosen: Settings) -> None:
    """Make the work pools, each with its limit of runs at once."""
    from emissary.worker import WarmWorker

    limits = {"training": chosen.training_runs, "engines": None}
    async with get_client() as client:
        known = {pool.name for pool in await client.read_work_pools()}
        for name, limit in limits.items():
            if name in known:
                await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
            else:
                pool = WorkPoolCreate(
                    name=name,
                    type=WarmWorker.type,
                    base_job_template=WarmWorker.get_default_base_job_template(),
                    concurrency_limit=limit,
                )
                await client.create_work_pool(pool)


async def _register_blocks() -> None:
    """Have Prefect's UI offer our own types of blocks."""
    from blocks.hub_token import HubToken
    from blocks.mail import Mail

    async with get_client() as client:
        for block in (HubToken, Mail):
            await block.aregister_type_and_schema(client=client)


def apply_flow_deployments(environment: Mapping[str, str]) -> None:
    """Tell Prefect's server at PREFECT_API_URL of `environment` of the flows in deployments.yaml.

    Raises EmissaryError with what Prefect said against them.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", "deployments.yaml", "--all"]
    for _ in range(_DEPLOY_TRIES):
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
        if not done.returncode:
            return
        # Prefect's server may have died, and is started again.
        _wait(f"{environment['PREFECT_API_URL']}/health", "Prefect's server")
    raise EmissaryError(f"deployments.yaml could not be applied: {(done.stdout + done.stderr)[-2000:]}")


def _wait(url: str, what: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    said = "no answer"
    while time.monotonic() < deadline:
        try:
            response = httpx.get(url, timeout=5, trust_env=False)
        except httpx.TransportError as error:
            said = str(error)
        else:
            if response.status_code == 200:
                return
            said = response.text
        time.sleep(0.2)
    raise EmissaryError(
        f"{what} was not ready within {_READY_SECONDS:.0f} s ({said}); see the folder logs in EMISSARY_HOME."
    )
