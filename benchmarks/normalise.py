"""How fast a large JSON Lines file is validated and normalised, in how much memory, beside pyarrow reading it.

    python benchmarks/normalise.py [--megabytes 500] [--rounds 1]

Every figure is of a process of its own, over the same file, which is in the page cache from the beginning as far as it
fits. The processes take turns, so that what else the machine does falls on all of them.
"""

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

WORDS = (
    "the",
    "order",
    "invoice",
    "says",
    "that",
    "refund",
    "for",
    "our",
    "account",
    "café",
    "naïve",
    "你好",
    "is open",
)
_MB = 1_000_000


def write_rows(file: Path, size: int) -> int:
    """Write rows of `size` bytes and a little more, all different; returns how many."""
    choose = random.Random(0)  # noqa: S311 - words, no secrets

    def text(words: int) -> str:
        return json.dumps(" ".join(choose.choices(WORDS, k=choose.randint(words // 4, words))), ensure_ascii=False)[
            1:-1
        ]

    prompts, completions = [text(120) for _ in range(5000)], [text(60) for _ in range(4999)]
    written = 0
    with file.open("w", encoding="utf-8") as target:
        for number in itertools.count(1):
            prompt, completion = prompts[number % 5000], completions[number % 4999]
            line = f'{{"prompt": "{number}: {prompt}", "completion": "{completion}"}}\n'
            target.write(line)
            written += len(line.encode())
            if written >= size:
                return number
    raise AssertionError


def read_json(file: Path) -> int:
    """pyarrow's whole table, as it is by default."""
    import pyarrow.json

    return int(pyarrow.json.read_json(file).num_rows)


def open_json(file: Path) -> int:
    """pyarrow's batches, each dropped when the next comes."""
    import pyarrow.json

    return sum(batch.num_rows for batch in pyarrow.json.open_json(file))


def validate(file: Path) -> int:
    """What an upload does."""
    from emissary.data.validation import validate

    return validate(file, file.name).rows


def normalise(file: Path) -> int:
    """What prepare_dataset does."""
    import pyarrow.parquet

    from emissary.data.normalise import normalise

    target = file.with_suffix(".parquet")
    normalise(file, file.name, target)
    return int(pyarrow.parquet.read_metadata(target).num_rows)


MEASURED: dict[str, Callable[[Path], int]] = {
    "pyarrow.json.read_json": read_json,
    "pyarrow.json.open_json": open_json,
    "validate": validate,
    "normalise": normalise,
}


def measure(name: str, file: Path) -> None:
    """Print rows, seconds, CPU seconds and the peak of memory in MiB, in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    rows = MEASURED[name](file)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps([rows, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1, help="of which the median is shown")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]))
        return
    with tempfile.TemporaryDirectory(prefix="emissary-benchmark-") as folder:
        file = Path(folder) / "rows.jsonl"
        rows = write_rows(file, arguments.megabytes * _MB)
        size = file.stat().st_size / _MB
        names = list(MEASURED)
        if 3 * file.stat().st_size > psutil.virtual_memory().available:
            print("The table of read_json would not fit into memory: it is left out, and shares are of open_json.")
            names.remove("pyarrow.json.read_json")
        found: dict[str, list[list[float]]] = {name: [] for name in names}
        for _, name in itertools.product(range(arguments.rounds), names):
            command = [sys.executable, __file__, "--measure", name, str(file)]
            count, *figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert count == rows
            found[name].append(figures)
    table = Table("what", "seconds", "MB/s", "speed", "CPU seconds", "peak MiB", title=f"{size:.0f} MB, {rows} rows")
    median = {
        name: [statistics.median(column) for column in zip(*figures, strict=True)] for name, figures in found.items()
    }
    for name, (seconds, cpu, peak) in median.items():
        share = median[names[0]][0] / seconds
        table.add_row(name, f"{seconds:.1f}", f"{size / seconds:.0f}", f"{share:.2f}", f"{cpu:.1f}", f"{peak:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
