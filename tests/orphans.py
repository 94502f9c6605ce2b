"""Orphans that stay in sight."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """While the block runs, processes whose parent dies become children of this one, which has to wait for them."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)
