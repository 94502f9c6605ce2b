"""The process of a testing function where nothing isolates it."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.blocks.processes import descendants, running

ENDLESS = """
import asyncio
from blocks.sandbox import run_rows
from emissary.testing_function_files import TestingFunction
function = TestingFunction(name="attempt", content="while True: pass")
asyncio.run(run_rows(function, [("", "", "")], seconds=60, isolation="none", trusted=False))
"""


def test_a_plain_process_dies_with_the_one_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 30
        while not (children := descendants(parent.pid)):
            assert time.monotonic() < deadline, "it has started nothing"
            time.sleep(0.02)
        # It asks for that before it reads the function, whose loop it is in by now or will be.
        (child,) = children
        while psutil.Process(child).cpu_times().user < 0.5:
            assert time.monotonic() < deadline, "it does nothing"
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while running(child):
        assert time.monotonic() < deadline, "it goes on alone"
        time.sleep(0.02)
