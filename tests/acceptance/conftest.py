"""Real servers that acceptance tests run against."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest

from tests.acceptance.own_platform import OwnPlatform, own_platform
from tests.conftest import free_port
from tests.jobs import until

KEYS = {"AWS_ACCESS_KEY_ID": "emissary", "AWS_SECRET_ACCESS_KEY": "emissary-secret"}
BUCKET = "emissary-tests"


@dataclass(frozen=True)
class S3Server:
    """A running seaweedfs server, and the variables with which the platform reaches it."""

    variables: dict[str, str]
    bucket: str


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of the S3 protocol on a free port, empty."""
    with s3_started() as server:
        yield server


@contextmanager
def s3_started(notification: str | None = None) -> Iterator[S3Server]:
    """Such a server while the block runs, with this notification.toml where one is given."""
    identity = {
        "name": "emissary",
        "credentials": [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    reader = {
        "name": "reader",
        "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
        "actions": ["Read", "List"],
    }
    with tempfile.TemporaryDirectory(prefix="emissary-s3-", ignore_cleanup_errors=True) as folder:
        Path(folder, "s3.json").write_text(json.dumps({"identities": [identity, reader]}))
        Path(folder, "data").mkdir()
        if notification is not None:
            Path(folder, "notification.toml").write_text(notification)
        # Each has a gRPC port 10,000 above, which must be one as well.
        ports = {name: _low_port() for name in ("master", "volume", "filer", "s3")}
        log = Path(folder, "log").open("wb")  # noqa: SIM115 - closed when the server has ended
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "weed"), "-logtostderr=true", "server", f"-dir={folder}/data",
                "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer=true", "-s3", f"-s3.config={folder}/s3.json",
                "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20", "-master.volumeSizeLimitMB=64",
                "-master.volumePreallocate=false",
                *(f"-{name}.port={port}" for name, port in ports.items()),
            ],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        endpoint = f"http://127.0.0.1:{ports['s3']}"

        def answers() -> bool:
            assert process.poll() is None, Path(folder, "log").read_text(errors="replace")[-3000:]
            try:
                return httpx.get(f"{endpoint}/healthz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(answers, bool)
            secrets = {
                "aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
                "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
            }
            boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **secrets).create_bucket(Bucket=BUCKET)
            yield S3Server(KEYS | {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}, BUCKET)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log.close()
            for port in ports.values():
                for number in (port, port + 10_000):
                    for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                        left.unlink()


def _low_port() -> int:
    while (port := free_port()) > 55_000:
        pass
    return port


@pytest.fixture(scope="module")
def own(base_model_dir: Path) -> Iterator[OwnPlatform]:
    """`emissary up` of the module's own, which may be killed; two trainings at once."""
    with own_platform(base_model_dir.parent, EMISSARY_TRAINING_RUNS="2") as platform:
        yield platform
