"""Queries of testing functions: those that an organization added, beside those that ship as files."""

import re
from collections.abc import Sequence

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from emissary import testing_function_files
from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.judges import AnyFunction, Judge, JudgeFunction
from emissary.store.pages import Page
from emissary.store.tables import GONE, TERMINAL, Deployment, Project, TestingFunction, TrainingJob
from emissary.store.users import Caller

_SHOWN_NAMES = 20


async def create(
    session: AsyncSession,
    caller: Caller,
    name: str,
    *,
    content: str | None,
    dependencies: list[str],
    judge: Judge | None,
) -> TestingFunction:
    """A new function of the caller's organization, of `content` or a `judge`. Raises InvalidInput where it has one of
    that name.
    """
    row = insert(TestingFunction).values(
        id=new_id("tf"),
        organization_id=caller.organization_id,
        name=name,
        content=content,
        dependencies=dependencies,
        judge=None if judge is None else judge.model_dump(),
        created_by=caller.user_id,
    )
    new = row.on_conflict_do_nothing(index_elements=["organization_id", "name"]).returning(TestingFunction)
    made = await session.scalar(new)
    if made is None:
        raise _taken(name)
    return made


async def require_free(session: AsyncSession, organization_id: str, name: str) -> None:
    """Raises InvalidInput where the organization has a function of that name."""
    if await _find(session, organization_id, name) is not None:
        raise _taken(name)


def _taken(name: str) -> InvalidInput:
    return InvalidInput(f"name: there is a testing function {name!r} already; change it with PUT, or use another name.")


async def get(session: AsyncSession, organization_id: str, name: str, *, hold: bool = False) -> TestingFunction:
    """The organization's own function; `hold` locks it until the transaction ends.

    Raises NotFound, and InvalidInput for one that ships.
    """
    if name in testing_function_files.shipped():
        raise InvalidInput(
            f"The testing function {name!r} ships with the platform and cannot be changed; add a copy under a name "
            "of your own.",
            code="read_only",
        )
    row = await _find(session, organization_id, name, hold)
    if row is None:
        raise NotFound(f"There is no testing function {name!r}.")
    return row


async def find(session: AsyncSession, organization_id: str, name: str) -> AnyFunction:
    """The function, one of those that ship or the organization's own, as it is run. Raises NotFound."""
    if (ships := testing_function_files.shipped().get(name)) is not None:
        return ships
    return _runnable(await get(session, organization_id, name))


async def list_own(session: AsyncSession, organization_id: str, wanted: Page) -> Sequence[TestingFunction]:
    """The organization's own functions in the order of their names, of which `wanted.after` is one."""
    order = TestingFunction.name.collate("C")
    query = select(TestingFunction).where(TestingFunction.organization_id == organization_id).order_by(order)
    if wanted.after is not None:
        query = query.where(order > wanted.after)
    return (await session.scalars(query.limit(wanted.limit))).all()


async def take_unused(session: AsyncSession, organization_id: str, name: str) -> TestingFunction:
    """The organization's own function, held so that no new job takes it until the transaction ends.

    Raises as `get`, and InvalidInput while a training job that has not ended uses the function.
    """
    row = await get(session, organization_id, name, hold=True)
    query = (
        select(TrainingJob.id)
        .join(Project, Project.id == TrainingJob.project_id)
        .where(
            Project.organization_id == organization_id,
            TrainingJob.status.not_in(TERMINAL),
            or_(TrainingJob.test_functions.contains([name]), TrainingJob.reward_functions.has_key(name)),
        )
    )
    job_id = await session.scalar(query.limit(1))
    if job_id is not None:
        raise InvalidInput(
            f"The training job {job_id} uses the testing function {name!r} and has not ended; wait for it, cancel it, "
            "or add the changed function under another name.",
            code="in_use",
        )
    return row


async def resolve(
    session: AsyncSession, organization_id: str, names: Sequence[str], field: str = "test_functions"
) -> list[AnyFunction]:
    """The functions of `names`, in that order, as they are run: those that ship, and the organization's own.

    They stay as they are until the transaction ends, and after it while a job that has not ended uses them.
    Raises InvalidInput where a name is unknown, naming the entry of `field` and the functions there are, or is of a
    judge whose deployment is gone.
    """
    known: dict[str, AnyFunction] = dict(testing_function_files.shipped())
    wanted = [name for name in names if _may_be_name(name)]
    query = select(TestingFunction).where(
        TestingFunction.organization_id == organization_id, TestingFunction.name.in_(wanted)
    )
    rows = await session.scalars(query.order_by(TestingFunction.name).with_for_update(read=True))
    known |= {row.name: _runnable(row) for row in rows}
    for position, name in enumerate(names):
        if name not in known:
            own = await list_own(session, organization_id, Page(_SHOWN_NAMES))
            there = ", ".join([*testing_function_files.shipped(), *(row.name for row in own)])
            raise InvalidInput(
                f"{field}[{position}] is {name!r}, but there is no such testing function; known are: {there}."
            )
    functions = [known[name] for name in names]
    await _require_live_judges(session, functions, field)
    return functions


async def _require_live_judges(session: AsyncSession, functions: Sequence[AnyFunction], field: str) -> None:
    asked = {function.judge.deployment_id for function in functions if isinstance(function, JudgeFunction)}
    query = select(Deployment.id).where(Deployment.id.in_(asked), Deployment.status.not_in(GONE))
    live = set(await session.scalars(query)) if asked else set()
    for position, function in enumerate(functions):
        if isinstance(function, JudgeFunction) and function.judge.deployment_id not in live:
            raise InvalidInput(
                f"{field}[{position}]: the judge {function.name!r} asks the deployment {function.judge.deployment_id}, "
                f"which is gone; give it another with PUT /v1/testing-functions/{function.name}.",
                code="judge_gone",
            )


async def of_job(session: AsyncSession, job: TrainingJob) -> list[AnyFunction]:
    """The functions that score the job, in its order. Raises InvalidInput where one or a judge's deployment is gone."""
    project = await session.get_one(Project, job.project_id)
    return await resolve(session, project.organization_id, job.test_functions)


async def dependencies(session: AsyncSession) -> Sequence[list[str]]:
    """What each function of any organization depends on, where it depends on something."""
    query = select(TestingFunction.dependencies).where(func.jsonb_array_length(TestingFunction.dependencies) > 0)
    return (await session.scalars(query)).all()


async def changed_rewards(session: AsyncSession, job: TrainingJob) -> list[str]:
    """Those of the job's functions with a weight in its reward that were changed after some of it had been trained."""
    if not job.training_loss:
        return []
    project = await session.get_one(Project, job.project_id)
    query = select(TestingFunction.name).where(
        TestingFunction.organization_id == project.organization_id,
        TestingFunction.name.in_([name for name, weight in (job.reward_functions or {}).items() if weight]),
        TestingFunction.updated_at > job.started_at,
    )
    return sorted(await session.scalars(query))


async def _find(session: AsyncSession, organization_id: str, name: str, hold: bool = False) -> TestingFunction | None:
    if not _may_be_name(name):
        return None
    query = select(TestingFunction).where(
        TestingFunction.organization_id == organization_id, TestingFunction.name == name
    )
    return (await session.scalars(query.with_for_update() if hold else query)).first()


def _may_be_name(name: str) -> bool:
    return re.fullmatch(r"\w+", name, re.ASCII) is not None


def _runnable(row: TestingFunction) -> AnyFunction:
    if row.judge is not None:
        return JudgeFunction(name=row.name, judge=Judge(**row.judge))
    assert row.content is not None
    return testing_function_files.TestingFunction(name=row.name, content=row.content, dependencies=row.dependencies)
