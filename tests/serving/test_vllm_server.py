"""How the server starts and ends, with stand-ins for vLLM; tests/acceptance/test_grpo_vllm.py has vLLM itself."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from emissary.serving import vllm_program
from emissary.serving.vllm_server import VllmFailed, vllm_server
from tests.jobs import until
from tests.orphans import adopting_orphans
from tests.own_home import own_home

# Starts a process as vLLM starts its engine, says when that runs, and does nothing from then on.
SERVER = """
import multiprocessing, time
if __name__ == "__main__":
    engine = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    multiprocessing.get_context("spawn").Process(target=exec, args=(engine,)).start()
    time.sleep(600)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with own_home() as folder:
        yield folder


def start(python: Path, folder: Path, *, rank: int = 8, meanwhile: Callable[[], None] = lambda: None) -> None:
    options: dict[str, Any] = {"dtype": "float32", "max_length": 64, "sequences": 4, "seed": 7}
    with vllm_server(python, folder, folder=folder, rank=rank, meanwhile=meanwhile, **options):
        pytest.fail("it started")


def script(folder: Path, text: str) -> Path:
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def server_and_engine(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    module = tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    module.write_text(SERVER)
    with adopting_orphans():
        server = subprocess.Popen(
            [sys.executable, "-P", vllm_program.__file__],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server, psutil.Process(int(server.stdout.readline()))
        finally:
            server.stdin.close()
            server.stdout.close()
            server.kill()
            server.wait()
            for orphan in psutil.Process().children():
                if orphan.status() == psutil.STATUS_ZOMBIE:
                    orphan.wait()


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_server_and_engine_end_with_their_starter(
    server_and_engine: tuple[subprocess.Popen[bytes], psutil.Process],
) -> None:
    server, engine = server_and_engine
    assert server.stdin is not None
    server.stdin.close()  # as the kernel does when the starter has ended
    assert server.wait(30) == -signal.SIGKILL
    until(lambda: has_ended(engine), bool)


def test_engine_ends_with_the_starter_of_a_server_that_was_killed(
    server_and_engine: tuple[subprocess.Popen[bytes], psutil.Process],
) -> None:
    server, engine = server_and_engine
    server.kill()
    server.wait()
    assert not has_ended(engine)
    assert server.stdin is not None
    server.stdin.close()
    until(lambda: has_ended(engine), bool)


def test_python_without_vllm_is_told_of_with_the_log(home: Path, tmp_path: Path) -> None:
    log = home / "logs" / "vllm.log"
    with pytest.raises(VllmFailed) as failed:
        start(Path(sys.executable), tmp_path)
    assert str(failed.value).startswith(f"vLLM ended with code 1 while it started; {log} says why.")
    assert "No module named 'vllm'" in log.read_text()


def test_python_that_is_not_there_is_told_of(home: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(VllmFailed, match=f"EMISSARY_VLLM is {missing}, which cannot be run .No such file or directory"):
        start(missing, tmp_path)


def test_vllm_gets_what_it_needs_and_no_secret(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMISSARY_SIGNING_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PREFECT_API_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(VllmFailed, match="ended with code 3 while it started"):
        start(script(tmp_path, 'env; echo "$@"; exit 3'), tmp_path, rank=17)
    said = (home / "logs" / "vllm.log").read_text()
    assert "a-secret" not in said
    assert {"CUDA_VISIBLE_DEVICES=1", "VLLM_WORKER_MULTIPROC_METHOD=spawn"} <= set(said.splitlines())
    for words in ("--max-lora-rank 32 ", "--max-model-len 64 ", "--host 127.0.0.1 ", "--load-format safetensors "):
        assert words in said


def test_start_is_given_up_when_the_caller_wants_so(home: Path, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def meanwhile() -> None:
        if (tmp_path / "pid").exists():
            raise Enough

    with pytest.raises(Enough):
        start(script(tmp_path, f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 600"), tmp_path,
              meanwhile=meanwhile)  # fmt: skip
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
