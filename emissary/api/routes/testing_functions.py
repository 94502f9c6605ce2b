"""Testing functions."""

from fastapi import APIRouter

from emissary.api.auth import CurrentUser
from emissary.testing_function_files import TestingFunction, shipped

router = APIRouter(tags=["Testing Functions"])


@router.get("/v1/testing-functions", operation_id="listTestFunctions", summary="List Testing Functions")
async def list_testing_functions(_user: CurrentUser) -> list[TestingFunction]:
    """The functions that score a model's answers, with their source."""
    return list(shipped().values())
