"""What a run fetches from outside becomes a dataset of the project, once. From a real server, in an own catalogue."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.settings import settings
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Dataset
from tests.catalogue import in_catalogue
from tests.jobs import jsonl
from tests.own_home import own_catalogue
from tests.tasks.fetching_runs import TRAIN, Runs
from tests.web_server import ADDRESS, Web, web_server

FIRST = [{"prompt": f"Say {word}.", "completion": word} for word in ("red", "green")]
SECOND = [{"prompt": f"Say {word}.", "completion": word} for word in ("green", "blue")]


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with own_catalogue(), pytest.MonkeyPatch.context() as patch, web_server() as running:
        patch.setattr(settings(), "allow_private_urls", (ADDRESS,))
        patch.setattr("tasks.fetching.require_lease", lambda: None)  # no flow run has one here
        yield running


def content(dataset: Dataset) -> bytes:
    folder: Path = artifact_store().folder(dataset.artifact)
    return (folder / "original.jsonl").read_bytes()


def test_new_content_becomes_a_dataset_and_what_a_decided_run_had_is_not_new(web: Web) -> None:
    runs = Runs("news", {"source": "url", "url": web.put("/news.jsonl", jsonl(FIRST))})
    first = runs.begin()
    assert runs.fetch(first)
    (dataset,) = runs.datasets()
    assert runs.gathered(first) == [dataset.id]
    assert (content(dataset), dataset.name, dataset.status) == (jsonl(FIRST), "news-news-0-new", "Pending")
    assert runs.fetch(first)  # as after a kill
    assert len(runs.datasets()) == 1

    again = runs.begin()  # the first has not come to a decision: the same data, and no second dataset of it
    assert runs.fetch(again)
    assert runs.gathered(again) == [dataset.id]
    runs.decide(again)
    assert not runs.fetch(third := runs.begin())
    assert runs.gathered(third) is None

    web.put("/news.jsonl", jsonl(SECOND))
    assert runs.fetch(changed := runs.begin())
    newer = runs.datasets()[-1]
    assert runs.gathered(changed) == [newer.id]
    assert content(newer) == jsonl(SECOND)


def test_to_a_pipeline_that_was_changed_what_its_runs_had_is_new_again(web: Web) -> None:
    runs = Runs("changed", {"source": "url", "url": web.put("/changed.jsonl", jsonl(FIRST), ETag='"one"')})
    first = runs.begin()
    assert runs.fetch(first)
    runs.decide(first)
    runs.change(name="renamed", paused=True)
    assert not runs.fetch(runs.begin())
    runs.change(train=TRAIN | {"parameters": {"num_train_epochs": 7}})
    again = runs.begin()
    assert runs.fetch(again)
    assert runs.gathered(again) == runs.gathered(first)
    runs.decide(again)
    assert not runs.fetch(runs.begin())


def test_known_content_in_another_place_is_fetched_from_there_once(web: Web) -> None:
    runs = Runs("moved", {"source": "url", "url": web.put("/moved.jsonl", jsonl(FIRST), ETag='"one"')})
    first = runs.begin()
    assert runs.fetch(first)
    runs.decide(first)
    web.put("/moved.jsonl", jsonl(FIRST), ETag='"two"')
    for known in ("one", "two", "two"):
        assert not runs.fetch(runs.begin())
        assert web.asked[-1][1]["If-None-Match"] == f'"{known}"'
    web.put("/moved.jsonl", jsonl(SECOND), ETag='"three"')
    assert runs.fetch(runs.begin())


def test_merging_takes_all_that_was_fetched_and_is_still_there(web: Web) -> None:
    runs = Runs("merging", {"source": "url", "url": web.put("/merging.jsonl", jsonl(FIRST)), "merge": True})
    runs.fetch(first := runs.begin())
    runs.decide(first, "Promoted")
    web.put("/merging.jsonl", jsonl(SECOND))
    runs.fetch(second := runs.begin())
    older, newer = runs.datasets()
    assert runs.gathered(second) == [older.id, newer.id]
    runs.decide(second)

    async def delete(session: AsyncSession) -> None:
        await session.delete(await session.get_one(Dataset, older.id))

    in_catalogue(delete)
    web.put("/merging.jsonl", jsonl(FIRST))
    assert not runs.fetch(runs.begin())  # known by content, although its dataset is gone
    web.put("/merging.jsonl", jsonl(SECOND[1:]))
    runs.fetch(third := runs.begin())
    assert runs.gathered(third) == [newer.id, runs.datasets()[-1].id]


@pytest.mark.parametrize(
    ("name", "body", "task_type", "words"),
    [
        ("empty", b"", "text-generation", r"^gather: what was fetched cannot be used\. The file is empty"),
        ("page", b"<html></html>", "text-generation", r"^gather: what was fetched cannot be used\. "),
        (
            "row",
            jsonl([*FIRST, {"prompt": "Say blue."}]),
            "text-generation",
            r"^gather: .* Line 3: .*\. Correct or remove such rows where they are fetched from, and run again\.$",
        ),
        ("misfit", jsonl(FIRST), "regression", r"^gather: the dataset 'misfit-.*' does not fit regression"),
        ("away", None, "text-generation", r"^gather\.url: .* is not there \(404\)"),
    ],
)
def test_what_cannot_be_trained_on_leaves_nothing(
    web: Web, name: str, body: bytes | None, task_type: str, words: str
) -> None:
    address = f"{web.url}/{name}.jsonl" if body is None else web.put(f"/{name}.jsonl", body)
    runs = Runs(name, {"source": "url", "url": address}, task_type=task_type)
    before = artifact_store().keys("datasets")
    with pytest.raises(InvalidInput, match=words):
        runs.fetch(run := runs.begin())
    assert (runs.datasets(), runs.gathered(run)) == ([], None)
    assert artifact_store().keys("datasets") == before


def test_run_that_was_killed_before_it_noted_what_it_had_stored_fetches_anew(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs("killed", {"source": "url", "url": web.put("/killed.jsonl", jsonl(FIRST))})
    run = runs.begin()

    class Killed(BaseException):
        pass

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("emissary.store.fetched_data.note", killed)
        with pytest.raises(Killed):
            runs.fetch(run)
    assert runs.datasets() == []
    web.put("/killed.jsonl", jsonl(SECOND))
    assert runs.fetch(run)
    (dataset,) = runs.datasets()
    assert content(dataset) == jsonl(SECOND)
