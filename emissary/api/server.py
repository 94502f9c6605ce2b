"""The API's process: `python -m emissary.api.server FD` serves on the listening socket FD, which its starter holds.

Connections that are made while it is restarted wait in that socket's queue, so none is refused. On SIGTERM it takes no
more of them and answers what it has begun. Its temporary files lie in a folder of its own, which the next one removes
where it was killed.
"""

import os
import socket
import sys
import tempfile

import uvicorn

from emissary.api.http_protocol import CLOSE, EnvelopeProtocol
from emissary.process_folders import scratch_folder
from emissary.settings import settings

GRACE_SECONDS = 17
"""How long requests in flight may take to end; whoever stops the API kills it after 20 seconds."""


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in order: uvicorn's; streams that end only with their training job, and held requests, end now."""
        from emissary.api import cold_start, job_event_feed

        job_event_feed.end_all()
        cold_start.end_all()
        self.server_state.default_headers.append(CLOSE)
        await super().shutdown(sockets)


def main(descriptor: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    # Somebody waits for what the API asks of Prefect, so it asks once; the sweep asks again.
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"
    config = uvicorn.Config(
        "emissary.api.app:create_app",
        factory=True,
        log_level="warning",
        http=EnvelopeProtocol,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with scratch_folder(settings()) as scratch:
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
        _Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
