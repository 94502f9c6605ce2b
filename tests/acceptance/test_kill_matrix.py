"""A job that is killed at any step, with any process, ends with the bytes of one that was left alone.

Some cells belong to `make acceptance`; `make matrix` runs all of them.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.kill_matrix import KILLED, STEPS, TOLD, Matrix
from tests.acceptance.own_platform import OwnPlatform
from tests.acceptance.small_jobs import ALL, CLASSES, SFT, Small
from tests.conftest import SHOWN

_QUICK = {
    (SFT.name, "between saved states", "run"),
    (SFT.name, "at an epoch's end", "everything"),
    (SFT.name, "testing", "worker"),
    (CLASSES.name, "between saved states", TOLD),
}
"""Kills after which a run resumes, one of each kind: about three minutes."""
_RESUMES = ("run", "worker", "everything", TOLD)


def _cells() -> Iterator[object]:
    """Every step with every process for SFT, whose machinery all share; of the others every step, each process by turns
    as often as any other.
    """
    for number, small in enumerate(ALL):
        for place, step in enumerate(STEPS):
            mine = {killed for name, at, killed in _QUICK if (name, at) == (small.name, step)}
            for killed in KILLED if small is SFT else sorted({KILLED[(number + place) % len(KILLED)], *mine}):
                marks = [pytest.mark.matrix, *([pytest.mark.acceptance] if killed in mine else [])]
                yield pytest.param(small, step, killed, marks=marks, id=f"{small.name}-{step}-{killed}")


@pytest.fixture(scope="module")
def matrix(own: OwnPlatform) -> Matrix:
    """The matrix, whose undisturbed jobs are run once."""
    return Matrix(own)


@pytest.mark.parametrize(("small", "step", "killed"), list(_cells()))
def test_killed_job_ends_with_the_bytes_of_one_left_alone(
    matrix: Matrix, small: Small, step: str, killed: str, record_property: Callable[[str, str], None]
) -> None:
    cell = matrix.run(small, step, killed)
    record_property(f"{SHOWN}kill matrix: flow, killed when, process, after step, resumed at, adapters", cell.line())
    assert (cell.status, cell.same) == ("Success", "same bytes"), cell
    # One that is told to end finishes what it is about to.
    finished = killed == TOLD and step == "picking the best" and cell.resumed == "went on"
    assert finished or (cell.resumed != "went on") == (killed in _RESUMES), cell
    if cell.resumed.startswith("step") and step in ("between saved states", "at an epoch's end"):
        assert cell.resumed != "step 0", f"the trainer state was lost: {cell}"
    if cell.resumed.startswith("step") and killed == TOLD:
        assert int(cell.resumed.split()[1]) >= cell.killed_at, f"a step was done again: {cell}"
