"""Processes of this machine, as /proc has them."""

import contextlib
from pathlib import Path


def descendants(ancestor: int) -> set[int]:
    """Processes below `ancestor`."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = parent_of(int(entry.name))
    found = {ancestor}
    while grown := {process for process, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {ancestor}


def parent_of(process: int) -> int:
    """Its parent. Raises OSError where it is gone."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def running(process: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
