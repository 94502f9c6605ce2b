"""Whether Linux's out-of-memory killer ends processes now. It counts for the whole machine, without saying whom."""

from collections import deque
from pathlib import Path

import anyio

# A process that holds much memory takes seconds to be gone.
_counts: deque[int] = deque(maxlen=5)


async def watch() -> None:
    """Look once a second, for ever."""
    while True:
        _counts.append(kills())
        await anyio.sleep(1)


def killed_lately() -> bool:
    """Whether it ended a process in the last five seconds that were watched."""
    return bool(_counts) and kills() > _counts[0]


def kills() -> int:
    """How often it has ended a process, here or in this control group; 0 elsewhere."""
    counts = []
    for file in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        try:
            lines = Path(file).read_text().splitlines()
        except OSError:
            continue
        counts += [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return sum(counts)
