"""The program that a python with vLLM runs: vLLM's OpenAI server, which ends with the process that started it.

Standard library only, for it runs in vLLM's environment. Standard input is a pipe that the starter holds open and never
writes to: when it closes, which the kernel sees to however the starter ends, the whole process group is killed. vLLM
spawns its engine, which runs this file too (as `__mp_main__`) and watches the same pipe; by itself vLLM leaves the
engine behind, and what it holds of the GPU's memory, when the server is killed.
"""

import os
import runpy
import signal
import threading


def _end_with_starter() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ in ("__main__", "__mp_main__"):  # never where it is only imported
    threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()

if __name__ == "__main__":
    # Not in place of this module: what is spawned is to find this file as its main program.
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
