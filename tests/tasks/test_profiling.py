"""What is made of a dataset's content, in a catalogue and a store of their own, without Prefect."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from emissary.api import deleting
from emissary.data.rows import OnInvalid, TaskType
from emissary.errors import InvalidInput
from emissary.ids import new_id
from emissary.settings import settings
from emissary.store import datasets, job_events, leftovers, prepared, projects
from emissary.store.artifacts import artifact_store
from emissary.store.database import dispose, transaction
from emissary.store.dataset_files import store_file
from emissary.store.tables import Dataset, Organization, TrainingJob, User
from emissary.store.users import Caller
from tasks import preparing, profiling
from tasks.profile_report import page
from tests.own_home import own_catalogue

ROWS = [
    {"prompt": f"Is {number} even?", "completion": {"yes": number % 2, "no": 1 - number % 2}} for number in range(8)
]


@pytest.fixture(scope="module")
def project(base_model_dir: Path) -> Iterator[str]:
    async def make() -> str:
        async with transaction() as session:
            session.add(Organization(id="org-1", name="ours"))
            await session.flush()
            session.add(User(id="user-1", organization_id="org-1", name="me"))
            await session.flush()
            caller = Caller(user_id="user-1", organization_id="org-1", role="member")
            return (await projects.create(session, "profiles", caller)).id

    with own_catalogue(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings(), "models", base_model_dir.parent)
        yield run(make())


def run(work: Any) -> Any:
    async def inside() -> Any:
        try:
            return await work
        finally:
            await dispose()

    return asyncio.run(inside())


async def upload(
    project: str, rows: list[dict[str, Any]] = ROWS, name: str = "rows.jsonl", on_invalid: OnInvalid = "refuse"
) -> Dataset:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    row = store_file(BytesIO(content), name, on_invalid)
    row.project_id, row.name, row.upload_by = project, "rows", "user-1"
    async with transaction() as session:
        session.add(row)
    return row


async def delete(dataset: Dataset) -> None:
    async with transaction() as session:
        await datasets.delete(session, await session.get_one(Dataset, dataset.id))
        left = [leftovers.of_dataset(dataset.id, dataset.sha256)]
        await leftovers.add(session, left)
    await deleting.clear(left)


def test_same_content_is_made_once_and_goes_with_the_last_dataset(
    project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    normalise = preparing.normalise

    def noted(source: Path, name: str, target: Path, only: Sequence[TaskType] | None) -> None:
        made.append(name)
        normalise(source, name, target, only)

    monkeypatch.setattr(preparing, "normalise", noted)

    async def all_of_it() -> None:
        first, second = await upload(project), await upload(project, name="tickets.v1.json.gz", on_invalid="skip")
        key = await preparing.prepare.fn(first.id)
        assert await preparing.prepare.fn(second.id) == key
        assert made == ["rows.jsonl"]
        await delete(first)
        assert artifact_store().keys(prepared.all_keys(first.sha256)) == [key]
        await delete(second)
        assert artifact_store().keys(prepared.all_keys(first.sha256)) == []

    run(all_of_it())


def test_damaged_rows_are_made_again(project: str) -> None:
    async def all_of_it() -> None:
        dataset = await upload(project)
        path = artifact_store().folder(await preparing.prepare.fn(dataset.id)) / "rows.parquet"
        whole = path.read_bytes()
        path.write_bytes(b"x")
        await preparing.prepare.fn(dataset.id)
        assert path.read_bytes() == whole
        await delete(dataset)

    run(all_of_it())


def test_nothing_is_removed_that_a_new_dataset_of_the_same_content_finds(project: str) -> None:
    async def all_of_it() -> None:
        first = await upload(project)
        key = await preparing.prepare.fn(first.id)
        async with transaction() as removing:
            assert not await prepared.is_left(removing, prepared.all_keys(first.sha256))
            waiting = asyncio.create_task(preparing.prepare.fn(first.id))
            await asyncio.wait({waiting}, timeout=0.3)
            assert not waiting.done(), "it looked while somebody may be removing"
        assert await waiting == key
        await delete(first)

    run(all_of_it())


def test_profile_has_classes_tokens_and_plots_and_a_page(project: str) -> None:
    async def all_of_it() -> None:
        dataset = await upload(project)
        rows = await preparing.prepare.fn(dataset.id)
        profile, key = await profiling.make_profile.fn(dataset, rows, None, None, None)
        assert profile.plots == ["classes", "tokens"]
        assert profile.tokens is not None
        assert profile.tokens.rows == 8
        assert profile.imbalance == 1
        again = await profiling.make_profile.fn(dataset, rows, None, None, None)
        assert again == (profile, key)
        async with transaction() as session:
            kept = await datasets.get(session, project, dataset.id)
        assert (kept.is_profiled, kept.profile) == (True, profile.model_dump(mode="json"))
        dataset.name = "<b>bold</b> | name"
        shown = page(dataset, profile, {"classes": b"png"})
        assert "&lt;b&gt;bold&lt;/b&gt; \\| name" in shown
        assert "![classes](data:image/png;base64,cG5n)" in shown
        await delete(dataset)

    run(all_of_it())


def test_conversations_are_counted_with_the_template_and_without_one_it_says_so(project: str) -> None:
    turns = [{"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red"}]

    async def all_of_it() -> None:
        dataset = await upload(project, [{"messages": turns}] * 2)
        rows = await preparing.prepare.fn(dataset.id)
        profile, _ = await profiling.make_profile.fn(dataset, rows, None, None, "SmolLM2-135M-Instruct")
        assert profile.tokens is not None
        assert profile.tokens.lengths.quantiles["max"] > 10
        profile, _ = await profiling.make_profile.fn(dataset, rows, None, None, "all-MiniLM-L6-v2")
        assert profile.tokens is None
        assert any("no chat template" in said for said in profile.warnings)
        await delete(dataset)

    run(all_of_it())


def test_base_model_that_is_not_here_is_refused(project: str) -> None:
    with pytest.raises(InvalidInput, match="is not on this machine"):
        profiling.tokenizer_of("Mistral-7B-Instruct-v0.3")
    with pytest.raises(InvalidInput, match="unknown"):
        profiling.tokenizer_of("GPT-7")


async def a_job(project: str, train: Dataset, test: Dataset | None, **more: Any) -> TrainingJob:
    parameters = {"seed": 1, "downsample_size": more.pop("percent", 100)}
    job = TrainingJob(
        id=new_id("tr"), project_id=project, name="job", training_technique="SFT", task_type="classification",
        base_model_option="pre-trained", base_model="SmolLM2-135M-Instruct", train_dataset_id=train.id,
        test_dataset_id=test and test.id, test_functions=["exact_match_shared"], hyper_parameters=parameters,
        status="Running", created_by="user-1", **more,
    )  # fmt: skip
    async with transaction() as session:
        session.add(job)
    return job


def test_job_whose_test_rows_are_trained_on_or_have_labels_of_their_own_says_so_in_its_events(project: str) -> None:
    async def all_of_it() -> list[dict[str, Any]]:
        other = {"prompt": "Is this new?", "completion": {"yes": 0, "no": 0, "perhaps": 1}}
        train, test = await upload(project), await upload(project, [*ROWS[:2], other])
        keys = [await preparing.prepare.fn(each.id) for each in (train, test)]
        job = await a_job(project, train, test)
        for _ in range(2):  # as a run does that was killed
            training, tested = await preparing.training_and_test_rows.fn(job, *keys)
            await preparing.warn_of_rows.fn(job, training, tested)
        assert (len(training), len(tested)) == (8, 3)
        async with transaction() as session:
            return [event.details for event in await job_events.list_all(session, job.id)]

    with disable_run_logger():
        leaked, untrained = run(all_of_it())
    assert leaked["leaked_rows"] == 2
    assert leaked["message"].startswith("2 of 3 test rows have an input that is trained on too")
    assert (untrained["about"], untrained["labels"]) == ("untrained_labels", ["perhaps"])
    assert "labels that no training row has ('perhaps')" in untrained["message"]


def test_job_that_is_tested_on_what_an_ancestor_was_trained_on_says_so_in_its_events(project: str) -> None:
    def others(name: str) -> list[dict[str, Any]]:
        return [{"prompt": f"{name} {row['prompt']}", "completion": row["completion"]} for row in ROWS]

    async def all_of_it() -> tuple[str, list[dict[str, Any]]]:
        whole, middle, last = (
            await upload(project),
            await upload(project, others("b")),
            await upload(project, others("c")),
        )
        oldest = await a_job(project, whole, None, train_test_split_ratio=25.0)  # trained on six of the eight
        parent = await a_job(project, middle, last, parent_id=oldest.id)
        job = await a_job(project, last, whole, parent_id=parent.id)
        keys = [await preparing.prepare.fn(each.id) for each in (last, whole)]
        training, tested = await preparing.training_and_test_rows.fn(job, *keys)
        await preparing.warn_of_rows.fn(job, training, tested)
        async with transaction() as session:
            return oldest.id, [event.details for event in await job_events.list_all(session, job.id)]

    with disable_run_logger():
        oldest, (said,) = run(all_of_it())
    assert (said["leaked_rows"], said["trained_on_by"]) == (6, oldest)
    assert said["message"].startswith("6 of 8 test rows have an input that 'job' was trained on, whose adapter this")


def test_ancestor_whose_rows_are_damaged_does_not_fail_the_job(project: str) -> None:
    async def all_of_it() -> list[dict[str, Any]]:
        damaged = await upload(
            project, [{"prompt": f"d {row['prompt']}", "completion": row["completion"]} for row in ROWS]
        )
        whole = await upload(project)
        (file,) = (path for path in artifact_store().folder(damaged.artifact).iterdir() if path.stem == "original")
        file.write_bytes(b"x")
        parent = await a_job(project, damaged, None)
        job = await a_job(project, whole, None, parent_id=parent.id, train_test_split_ratio=25.0)
        training, tested = await preparing.training_and_test_rows.fn(job, await preparing.prepare.fn(whole.id), None)
        await preparing.warn_of_rows.fn(job, training, tested)
        async with transaction() as session:
            return [event.details for event in await job_events.list_all(session, job.id)]

    with disable_run_logger():
        (said,) = run(all_of_it())
    assert said["about"] == "unknown_leaks"
    assert "is damaged" in said["message"]


def test_job_with_testing_functions_and_nothing_to_test_on_says_so_in_its_events(project: str) -> None:
    async def all_of_it() -> list[dict[str, Any]]:
        train = await upload(project)
        job = await a_job(project, train, None)
        training, tested = await preparing.training_and_test_rows.fn(job, await preparing.prepare.fn(train.id), None)
        await preparing.warn_of_rows.fn(job, training, tested)
        async with transaction() as session:
            return [event.details for event in await job_events.list_all(session, job.id)]

    with disable_run_logger():
        (said,) = run(all_of_it())
    assert said["about"] == "nothing_to_test_on"
    assert "No checkpoint is tested" in said["message"]


def test_job_whose_training_rows_come_to_be_of_one_class_fails_with_a_sentence(project: str) -> None:
    async def all_of_it() -> None:
        train = await upload(project)
        key = await preparing.prepare.fn(train.id)
        job = await a_job(project, train, None, percent=10)
        with pytest.raises(InvalidInput, match=r"All rows .* \(downsample_size 10\) are of one class"):
            await preparing.training_and_test_rows.fn(job, key, None)

    run(all_of_it())
