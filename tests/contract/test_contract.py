"""Every operation of the contract is there and answers as written."""

from collections.abc import Callable

import pytest

from tests.conftest import SHOWN
from tests.contract.contract import contract, problems
from tests.contract.scenario import OPERATIONS, Seen, faults


def test_contract_has_its_35_operations() -> None:
    assert len(OPERATIONS) == 35


def test_schemas_of_the_contract_tell_right_from_wrong() -> None:
    schema = {"$ref": "#/components/schemas/TrainingJobSummary"}
    assert not problems(contract(), schema, {"status": "Running", "reward": {"test_function_1": 0.5}})
    assert problems(contract(), schema, {"status": "Walking"})
    assert problems(contract(), schema, {"base_fine_tuned_model": None})


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_operation_gives_every_documented_answer(
    seen: Seen, operation_id: str, record_property: Callable[[str, str], None]
) -> None:
    wrong = faults(operation_id, seen)
    codes = " ".join(str(code) for code in sorted(seen[operation_id]))
    line = f"{operation_id:32} {codes:24} {wrong[0] if wrong else 'ok'}"
    record_property(f"{SHOWN}the contract, operation by operation", line)
    assert not wrong
