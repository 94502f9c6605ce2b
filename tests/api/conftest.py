"""A project with a dataset and a job for requests to refer to; servers that nothing works for."""

from collections.abc import Iterator

import pytest

from emissary.client import Client
from emissary.settings import settings
from tests.api.backends import Backends, started
from tests.api.refusals import GOOD, MODEL, upload
from tests.api.subscribing import Subscribing
from tests.web_server import ADDRESS, Web, web_server


@pytest.fixture(scope="package")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "bad-input"})["id"])


@pytest.fixture(scope="package")
def dataset(client: Client, project: str) -> str:
    return str(upload(client, project, GOOD * 4)["id"])


@pytest.fixture(scope="package")
def job(client: Client, project: str, dataset: str) -> str:
    """A job without checkpoints, cancelled at once; its request carries fields that the contract does not have."""
    body = {"base_model": MODEL, "train_dataset_id": dataset, "colour": "red", "nested": {"more": [1]}}
    path = f"/v1/projects/{project}/training-jobs"
    created = client.post(path, body)
    client.post(f"{path}/{created['id']}/cancel")
    return str(created["id"])


@pytest.fixture(scope="session")
def backends() -> Iterator[Backends]:
    """A catalogue and a Prefect server, without API and worker."""
    with started() as servers:
        yield servers


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server that the API may call."""
    monkeypatch.setattr(settings(), "allow_private_urls", (ADDRESS,))
    with web_server() as running:
        running.answers["/hook"] = (200, {}, b"thanks")
        yield running


@pytest.fixture
def subscribing(backends: Backends, web: Web) -> Subscribing:
    """A project whose events are told to `web`."""
    return Subscribing(backends, web)
