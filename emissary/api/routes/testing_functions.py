"""Testing functions."""

from emissary.api.routing import keyed_router
from emissary.testing_function_files import TestingFunction, shipped

router = keyed_router("Testing Functions")


@router.get("/v1/testing-functions", operation_id="listTestFunctions", summary="List Testing Functions")
async def list_testing_functions() -> list[TestingFunction]:
    """The functions that score a model's answers, with their source."""
    return list(shipped().values())
