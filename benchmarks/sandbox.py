"""What the sandbox costs: rows a second of a trivial function, and the time until the first score.

    python benchmarks/sandbox.py [--rows 20000] [--tries 10]

Everything is measured in one run, in turns, and compared with the same without isolation and with a call in this very
process; the ratios say more about the code than the seconds do, which are the machine's.
"""

import argparse
import asyncio
import gc
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from blocks.bubblewrap import refusal
from blocks.sandbox import Row, Sandbox
from emissary.settings import settings
from emissary.testing_function_files import TestingFunction

TARGET_ROWS, TARGET_START = 10_000, 0.1
SIGNATURE = "def one(input_text, expected_output, predicted_output):\n    return 1.0\n"
TRIVIAL = TestingFunction(name="one", content=SIGNATURE)
NUMPY = TestingFunction(name="one", content=f"import numpy\n{SIGNATURE}", dependencies=["numpy"])
ROW: Row = ("Say red.", "red", "Red")
Isolation = Literal["bwrap", "none"]


async def rows_a_second(isolation: Isolation, rows: Sequence[Row]) -> float:
    """Of a process that is there already."""
    async with Sandbox(TRIVIAL, seconds=600, isolation=isolation, trusted=False) as sandbox:
        await sandbox.run([ROW])
        begun = time.perf_counter()
        await sandbox.run(rows)
        return len(rows) / (time.perf_counter() - begun)


def rows_a_second_here(rows: Sequence[Row]) -> float:
    """Of a plain call in this process."""
    names: dict[str, Any] = {}
    exec(TRIVIAL.content, names)  # noqa: S102 - the function above
    begun = time.perf_counter()
    for row in rows:
        names["one"](*row)
    return len(rows) / (time.perf_counter() - begun)


async def seconds_to_score(function: TestingFunction, isolation: Isolation) -> float:
    """From nothing to the score of one row; dependencies are installed."""
    begun = time.perf_counter()
    async with Sandbox(function, seconds=600, isolation=isolation, trusted=False) as sandbox:
        await sandbox.run([ROW])
        return time.perf_counter() - begun


async def seconds_of_warm_call() -> float:
    """The score of one row of a process that is there already."""
    async with Sandbox(TRIVIAL, seconds=600, isolation="bwrap", trusted=False) as sandbox:
        await sandbox.run([ROW])
        begun = time.perf_counter()
        await sandbox.run([ROW])
        return time.perf_counter() - begun


async def measure(rows: int, tries: int) -> Table:
    """The medians over the tries, as a table."""
    found: dict[str, list[float]] = {}
    many = [ROW] * rows
    for function in (TRIVIAL, NUMPY):  # installs; the machine's caches are warm from here on
        await seconds_to_score(function, "bwrap")
    for _ in range(tries):
        gc.collect()
        for name, figure in (
            ("here", rows_a_second_here(many)),
            ("none", await rows_a_second("none", many)),
            ("bwrap", await rows_a_second("bwrap", many)),
            ("start none", await seconds_to_score(TRIVIAL, "none")),
            ("start bwrap", await seconds_to_score(TRIVIAL, "bwrap")),
            ("numpy none", await seconds_to_score(NUMPY, "none")),
            ("numpy bwrap", await seconds_to_score(NUMPY, "bwrap")),
            ("warm", await seconds_of_warm_call()),
        ):
            found.setdefault(name, []).append(figure)
    middle = {name: statistics.median(figures) for name, figures in found.items()}
    table = Table("", "sandbox", "plain process", "ratio", "in this process", "target")
    table.add_row(
        "rows a second",
        f"{middle['bwrap']:,.0f}",
        f"{middle['none']:,.0f}",
        f"{middle['bwrap'] / middle['none']:.2f}",
        f"{middle['here']:,.0f}",
        f"{TARGET_ROWS:,} or more",
    )
    for title, name, target in (
        ("first score, ms", "start", ""),
        ("first score with numpy, ms", "numpy", f"{TARGET_START * 1000:.0f} or less"),
    ):
        isolated, plain = middle[f"{name} bwrap"], middle[f"{name} none"]
        table.add_row(title, f"{isolated * 1000:.1f}", f"{plain * 1000:.1f}", f"{isolated / plain:.2f}", "", target)
    table.add_row("next score of the same process, ms", f"{middle['warm'] * 1000:.2f}", "", "", "", "")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--tries", type=int, default=10)
    given = parser.parse_args()
    if (refused := refusal()) is not None:
        raise SystemExit(f"This machine refuses a sandbox: {refused}")
    with tempfile.TemporaryDirectory(prefix="emissary-benchmark-") as home:
        settings().home = Path(home)
        # The plain process it is compared with is wanted here.
        logging.getLogger("blocks.sandbox").setLevel(logging.ERROR)
        Console(width=120).print(asyncio.run(measure(given.rows, given.tries)))


if __name__ == "__main__":
    main()
