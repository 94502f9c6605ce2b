"""Testing functions: those that ship, and an organization's own."""

from typing import Annotated

from fastapi import Depends, Request, Response

from emissary.api import function_trials
from emissary.api.auth import CurrentCaller
from emissary.api.paging import WantedPage, link_next
from emissary.api.routing import keyed_router
from emissary.errors import InvalidInput, NotFound
from emissary.judges import AnyFunction, Judge
from emissary.schemas.testing_functions import (
    TestingFunctionCreate,
    TestingFunctionSummary,
    TestingFunctionTry,
    TestingFunctionUpdate,
    TriedRow,
)
from emissary.store import judges, tables, testing_functions
from emissary.store.database import transaction
from emissary.testing_function_files import TestingFunction, shipped

router = keyed_router("Testing Functions", "/v1/testing-functions")


async def _own(name: str, caller: CurrentCaller) -> tables.TestingFunction:
    async with transaction() as session:
        return await testing_functions.get(session, caller.organization_id, name)


async def _any(name: str, caller: CurrentCaller) -> AnyFunction:
    async with transaction() as session:
        return await testing_functions.find(session, caller.organization_id, name)


OwnFunction = Annotated[tables.TestingFunction, Depends(_own)]
"""The path's function, the organization's own; 404 for another's, 400 for one that ships."""

FoundFunction = Annotated[AnyFunction, Depends(_any)]
"""The path's function, the organization's own or one that ships; 404 for another's."""


def _shipped(function: TestingFunction) -> TestingFunctionSummary:
    return TestingFunctionSummary(**function.model_dump(), judge=None, read_only=True)


@router.get("", operation_id="listTestFunctions", summary="List Testing Functions")
async def list_testing_functions(
    caller: CurrentCaller, page: WantedPage, request: Request, response: Response
) -> list[TestingFunctionSummary]:
    """The functions that score a model's answers, with their source, in the order of their names."""
    async with transaction() as session:
        if page.after is not None:
            try:
                await testing_functions.find(session, caller.organization_id, page.after)
            except NotFound as error:
                sentence = f"after: there is no {page.after!r} in this list, or not any more; begin it again."
                raise InvalidInput(sentence) from error
        own = await testing_functions.list_own(session, caller.organization_id, page)
    ships = [function for function in shipped().values() if page.after is None or function.name > page.after]
    entries = [*map(_shipped, ships), *map(TestingFunctionSummary.model_validate, own)]
    entries = sorted(entries, key=lambda entry: entry.name)[: page.limit]
    link_next(request, response, page, [entry.name for entry in entries])
    return entries


@router.post("", status_code=201, operation_id="createTestFunction", summary="Add a testing function")
async def create_testing_function(body: TestingFunctionCreate, caller: CurrentCaller) -> TestingFunctionSummary:
    """Loads the function in the sandbox and calls it on the sample row; keeps it when that gives a finite number.

    A judge is kept when its deployment is there and fits; it is not asked.
    """
    async with transaction() as session:
        await testing_functions.require_free(session, caller.organization_id, body.name)
    judge = await _checked(body.name, body, caller.organization_id)
    async with transaction() as session:
        row = await testing_functions.create(
            session, caller, body.name, content=body.content, dependencies=body.dependencies, judge=judge
        )
    return TestingFunctionSummary.model_validate(row)


async def _checked(
    name: str, body: TestingFunctionCreate | TestingFunctionUpdate, organization_id: str
) -> Judge | None:
    """The judge of `body`, None where it has Python. Raises InvalidInput where either would not work."""
    if body.content is not None:
        function = TestingFunction(name=name, content=body.content, dependencies=body.dependencies)
        await function_trials.require_score(function, body.sample)
    if body.judge is None:
        return None
    async with transaction() as session:
        return await judges.settle(session, organization_id, body.judge.judge())


@router.get("/{name}", operation_id="retrieveTestFunction", summary="Retrieve a testing function")
async def retrieve_testing_function(name: str, caller: CurrentCaller) -> TestingFunctionSummary:
    """One function with its source."""
    if (ships := shipped().get(name)) is not None:
        return _shipped(ships)
    return TestingFunctionSummary.model_validate(await _own(name, caller))


@router.put("/{name}", operation_id="updateTestFunction", summary="Change a testing function")
async def update_testing_function(own: OwnFunction, body: TestingFunctionUpdate) -> TestingFunctionSummary:
    """Checked as a new one is. 400 while a training job that has not ended uses it: a job is scored by one function."""
    if body.name not in (None, own.name):
        raise InvalidInput(f"name: the testing function {own.name!r} cannot be renamed; add another and delete it.")
    judge = await _checked(own.name, body, own.organization_id)
    async with transaction() as session:
        row = await testing_functions.take_unused(session, own.organization_id, own.name)
        row.content, row.dependencies = body.content, body.dependencies
        row.judge = None if judge is None else judge.model_dump()
        await session.flush()
        await session.refresh(row)
    return TestingFunctionSummary.model_validate(row)


@router.delete("/{name}", status_code=204, operation_id="deleteTestFunction", summary="Delete a testing function")
async def delete_testing_function(own: OwnFunction) -> None:
    """Scores that it gave stay. 400 while a training job that has not ended uses it."""
    async with transaction() as session:
        row = await testing_functions.take_unused(session, own.organization_id, own.name)
        await session.delete(row)


@router.post("/{name}/try", operation_id="tryTestFunction", summary="Try a testing function")
async def try_testing_function(
    function: FoundFunction, body: TestingFunctionTry, caller: CurrentCaller
) -> list[TriedRow]:
    """The score of each row, or the error that the function ended with. 400 where it gives no answer at all.

    The engine of a judge is started where it has ended, as for any request to it.
    """
    scores = await function_trials.run_any(caller.organization_id, function, body.rows)
    return [
        TriedRow(score=row.score, error=row.error, traceback=row.traceback or None, stdout=row.printed)
        for row in scores
    ]
