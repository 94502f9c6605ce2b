"""`emissary up` with its artifacts on an S3 server."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from emissary.client import Client
from emissary.settings import PROJECT_ROOT
from tests.acceptance.conftest import S3Server
from tests.conftest import free_port
from tests.jobs import until


@dataclass(frozen=True)
class UpOnS3:
    """A running platform: a client with its first key, its process, and the environment it was started in."""

    client: Client
    process: subprocess.Popen[bytes]
    environment: dict[str, str]


@contextmanager
def up_on_s3(s3_server: S3Server, base_model_dir: Path, prefix: str = "platform") -> Iterator[UpOnS3]:
    """Run the platform below `prefix` of the server's bucket while the block runs."""
    with tempfile.TemporaryDirectory(prefix="emissary-s3-platform-") as home:
        port, key = free_port(), "the-key-of-this-test"
        chosen = {
            "EMISSARY_HOME": home,
            "EMISSARY_MODELS": str(base_model_dir.parent),
            "EMISSARY_PORT": str(port),
            "EMISSARY_PREFECT_PORT": str(free_port()),
            "EMISSARY_MAX_UPLOAD_MB": "1",
            "EMISSARY_API_KEY": key,
            "EMISSARY_SIGNING_KEY": "the-signing-key-of-this-test",
            "EMISSARY_ARTIFACTS": f"s3://{s3_server.bucket}/{prefix}",
        }
        unset = ("PREFECT_API_URL", "EMISSARY_DATABASE_URL")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        environment |= s3_server.variables | chosen
        log = Path(home, "up.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "emissary.cli", "up"],
                env=environment,
                cwd=PROJECT_ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        client = Client(f"http://127.0.0.1:{port}", key)

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return client.http.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(ready, bool, seconds=300)
            yield UpOnS3(client, process, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
