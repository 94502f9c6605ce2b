"""A vLLM server of one base model and one adapter at a time, on the loopback address, for as long as a block runs.

vLLM needs other versions of libraries than Prefect, so it runs in an environment of its own: that of the python which
`EMISSARY_VLLM` names.
"""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from emissary.errors import Unavailable
from emissary.serving import vllm_program
from emissary.settings import settings

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's --max-lora-rank takes, but for 1."""
_GPU_MEMORY = 0.3  # of the GPU's, as TRL gives vLLM where both share one
_START_SECONDS = 900.0
_LOOK_SECONDS = 0.2
_STOP_SECONDS = 10.0
_HIDDEN = ("EMISSARY_", "PREFECT_", "AWS_", "HF_TOKEN", "MLFLOW_", "WANDB_", "PYTHON")
_BASE = "base"
_TIMEOUT = httpx.Timeout(3600.0, connect=10.0)
_LIMITS = httpx.Limits(max_connections=None)


class VllmFailed(Unavailable):
    """vLLM does not start, has ended, or refuses what it is asked."""

    code = "vllm_failed"


class VllmServer:
    """A running server; `vllm_server` starts it. Its methods may be called by several threads at once."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
        self._process, self._client, self._log = process, client, log

    def load(self, name: str, folder: Path) -> None:
        """Load the adapter that PEFT saved in `folder` as `name`, which no adapter of this server had before, for what
        vLLM keeps of earlier prompts is known by it. Raises VllmFailed.
        """
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload(self, name: str) -> None:
        """Forget the adapter `name`. Raises VllmFailed."""
        self._post("/v1/unload_lora_adapter", {"lora_name": name})

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a completions request of OpenAI's API, with vLLM's additions. Raises VllmFailed."""
        return dict(self._post("/v1/completions", request).json())

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            answer = self._client.post(path, json=body)
        except httpx.TransportError as error:
            # A server that ends closes its connections a little before it is gone.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            how = _ended(self._process) or f"does not answer ({str(error) or type(error).__name__})"
            raise VllmFailed(f"vLLM {how} in the middle of its work; {self._log} says why. Resume the job.") from error
        if answer.status_code != httpx.codes.OK:
            raise VllmFailed(
                f"vLLM refuses {path} with {answer.status_code}: {answer.text[:500]}. {self._log} may say more; unset "
                "EMISSARY_VLLM to generate without vLLM, and resume the job."
            )
        return answer


@contextmanager
def vllm_server(
    python: Path,
    model_dir: Path,
    *,
    folder: Path,
    dtype: str,
    max_length: int,
    sequences: int,
    rank: int,
    seed: int,
    meanwhile: Callable[[], None],
) -> Iterator[VllmServer]:
    """A server of the model in `model_dir` in `dtype`, ready for LoRA adapters of `rank`, while the block runs.

    It takes up to `max_length` tokens of a prompt with its completion, decodes up to `sequences` at once, and gives the
    log-probabilities of what it really samples from, after temperature. It works in `folder`, an existing one, and its
    output is appended to logs/vllm.log in EMISSARY_HOME. While it starts `meanwhile` is called again and again, and may
    raise. The server ends with the block, and with this process however that ends. Raises VllmFailed when it does not
    start.
    """
    log = settings().home / "logs" / "vllm.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    key, port = secrets.token_urlsafe(32), _free_port()
    options = {
        "model": str(model_dir),
        "served-model-name": _BASE,
        "host": "127.0.0.1",
        "port": str(port),
        "dtype": dtype,
        "max-model-len": str(max_length),
        "max-num-seqs": str(sequences),
        "max-loras": "1",
        "max-lora-rank": str(min(allowed for allowed in RANKS if allowed >= rank)),
        "gpu-memory-utilization": str(_GPU_MEMORY),
        "seed": str(seed),
        # Never pickles; no sampling defaults of the model's; what was sampled from, not the model's bare output.
        "load-format": "safetensors",
        "generation-config": "vllm",
        "logprobs-mode": "processed_logprobs",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    command = [str(python), "-I", vllm_program.__file__, *words, "--enable-lora", "--disable-uvicorn-access-log"]
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(key),
                stdin=subprocess.PIPE,  # held open and never written to: see vllm_program
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise VllmFailed(
            f"EMISSARY_VLLM is {python}, which cannot be run ({error.strerror}); name a python that has vLLM, or unset "
            "it to generate without vLLM, and resume the job."
        ) from error
    headers = {"Authorization": f"Bearer {key}"}
    address = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(
            base_url=address, headers=headers, timeout=_TIMEOUT, limits=_LIMITS, trust_env=False
        ) as client:
            _wait(process, client, log, meanwhile)
            yield VllmServer(process, client, log)
    finally:
        _stop(process)


def _environment(key: str) -> dict[str, str]:
    """This process's variables without the platform's secrets, and what vLLM is told by variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    return kept | {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # see vllm_program
        "VLLM_CACHE_ROOT": str(settings().home / "vllm"),
        # Sockets, whose paths are limited, in the server's folder.
        "VLLM_RPC_BASE_PATH": ".",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _wait(process: subprocess.Popen[bytes], client: httpx.Client, log: Path, meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        meanwhile()
        if (how := _ended(process)) is not None:
            raise VllmFailed(
                f"vLLM {how} while it started; {log} says why. See to it that EMISSARY_VLLM names a python that has "
                "vLLM, and that the GPU has memory for it, or unset it to generate without vLLM, and resume the job."
            )
        # Asked with the key, so no other server on that port is taken for this one.
        with suppress(httpx.TransportError):
            if client.get("/v1/models", timeout=5.0).status_code == httpx.codes.OK:
                return
        if time.monotonic() >= deadline:
            raise VllmFailed(
                f"vLLM was not ready within {_START_SECONDS:.0f} s; {log} says what it did. Resume the job."
            )
        time.sleep(_LOOK_SECONDS)


def _ended(process: subprocess.Popen[bytes]) -> str | None:
    code = process.poll()
    if code is None:
        return None
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    # What the server left, or all of it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
