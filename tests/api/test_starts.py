"""What a job starts from: an earlier job's checkpoint, or a model outside the catalogue; and what is refused."""

import json
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.client import Client
from emissary.store.tables import Checkpoint, Project, TrainingJob
from tests.api.refusals import GOOD, MODEL, refused, upload
from tests.api.test_bad_training_jobs import classified, create_job
from tests.catalogue import in_catalogue

SHAPE = {"lora_r": 4, "lora_alpha": 6}
GRPO = {"test_functions": ["exact_match_shared"], "reward": {"exact_match_shared": 1.0}}
TOPICS = ({"food": 1, "sport": 0}, {"food": 0, "sport": 1})


def parent(
    project: str, dataset: str, name: str, checkpoints: int, *, best: int | None = None, status: str = "Success",
    task_type: str = "text-generation",
) -> str:  # fmt: skip
    """Id of a job in the catalogue that never ran, with so many checkpoints."""

    async def make(session: AsyncSession) -> str:
        owner = await session.get_one(Project, project)
        job = TrainingJob(
            id=f"tr-{name}-{project[-6:]}-{checkpoints}", project_id=project, name=name, training_technique="SFT",
            task_type=task_type, base_model_option="pre-trained", base_model=MODEL, status=status,
            train_dataset_id=dataset, test_functions=[], hyper_parameters=SHAPE, best_checkpoint=best,
            created_by=owner.created_by,
        )  # fmt: skip
        session.add(job)
        await session.flush()
        session.add_all(Checkpoint(training_job_id=job.id, number=n + 1, artifact="none") for n in range(checkpoints))
        return job.id

    return in_catalogue(make)


def set_status(job: str, status: str) -> None:
    async def change(session: AsyncSession) -> None:
        (await session.get_one(TrainingJob, job)).status = status

    in_catalogue(change)


@pytest.fixture(scope="module")
def own(client: Client) -> str:
    """A project of this module's own."""
    return str(client.post("/v1/projects", {"name": "starts"})["id"])


@pytest.fixture(scope="module")
def rows(client: Client, own: str) -> str:
    return str(upload(client, own, GOOD * 4)["id"])


@pytest.fixture(scope="module")
def tuned(own: str, rows: str) -> str:
    """Id of the job `tuned`, with three checkpoints, of which the second is the best."""
    return parent(own, rows, "tuned", 3, best=2)


@pytest.fixture(scope="module", autouse=True)
def others(own: str, rows: str) -> None:
    parent(own, rows, "untested", 2)
    parent(own, rows, "empty", 0, status="Failed")
    parent(own, rows, "busy", 1, status="Running")
    parent(own, rows, "twice", 1)
    parent(own, rows, "twice", 2)


def body(rows: str, **changed: Any) -> dict[str, Any]:
    """A good request but for `changed`, of which None takes a field out."""
    wanted = {"base_model_option": "fine-tuned", "base_model": "tuned", "train_dataset_id": rows} | changed
    return {name: value for name, value in wanted.items() if value is not None}


def started(client: Client, project: str, wanted: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The detail of a new job, which is cancelled at once."""
    jobs = f"/v1/projects/{project}/training-jobs"
    made = client.post(jobs + path, wanted)
    client.post(f"{jobs}/{made['id']}/cancel")
    return dict(client.get(f"{jobs}/{made['id']}"))


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown job": ({"base_model": "no-such"}, ["base_model", "no training job 'no-such'"]),
    "base model as job": ({"base_model": MODEL}, ["base_model", f"no training job '{MODEL}'"]),
    "two jobs of one name": ({"base_model": "twice"}, ["base_model", "several", "give the id", "tr-twice"]),
    "checkpoint that is not there": ({"checkpoint": 4}, ["checkpoint", "no checkpoint 4", "1, 2, 3"]),
    "checkpoint 0": ({"checkpoint": 0}, ["checkpoint"]),
    "checkpoint of wrong type": ({"checkpoint": "2"}, ["checkpoint"]),
    "checkpoint as another word": ({"checkpoint": "last"}, ["checkpoint:"]),
    "half a checkpoint": ({"checkpoint": 2.5}, ["checkpoint:"]),
    "true as a checkpoint": ({"checkpoint": True}, ["checkpoint:"]),
    "best of a job that tested nothing": ({"base_model": "untested", "checkpoint": "best"}, ["none is best", "1, 2"]),
    "best of a job that runs": ({"base_model": "busy", "checkpoint": "best"}, ["checkpoint", "is Running"]),
    "job without checkpoints": ({"base_model": "empty"}, ["checkpoint", "has none", "Failed"]),
    "job that runs": ({"base_model": "busy"}, ["checkpoint", "is Running"]),
    "another task": ({"task_type": "embedding"}, ["task_type", "text-generation", "not embedding"]),
    "another rank": ({"parameters": {"lora_r": 16}}, ["parameters.lora_r", "4", "16"]),
    "another alpha": ({"parameters": {"lora_alpha": 32}}, ["parameters.lora_alpha", "6", "32"]),
    "rank out of range": ({"parameters": {"lora_r": 0}}, ["parameters.lora_r"]),
    "link too": ({"hf_model_link": "owner/name"}, ["hf_model_link", "pre-trained"]),
    "checkpoint of a base model": (
        {"base_model_option": "pre-trained", "base_model": MODEL, "checkpoint": 1},
        ["checkpoint", "fine-tuned"],
    ),
    "HF_MODEL without link": (
        {"base_model_option": None, "base_model": "HF_MODEL"},
        ["hf_model_link", "HF_MODEL needs it"],
    ),
    "link without HF_MODEL": (
        {"base_model_option": None, "base_model": MODEL, "hf_model_link": "owner/name"},
        ["hf_model_link", "HF_MODEL only"],
    ),
    "link to another site": (
        {"base_model_option": None, "base_model": "HF_MODEL", "hf_model_link": "https://evil.example/owner/name"},
        ["hf_model_link", "evil.example", "https://huggingface.co/owner/name"],
    ),
    "link with a path trick": (
        {"base_model_option": None, "base_model": "HF_MODEL", "hf_model_link": "https://huggingface.co/../etc"},
        ["hf_model_link"],
    ),
    "revision": (
        {"base_model_option": None, "base_model": "HF_MODEL", "hf_model_link": "https://huggingface.co/a/b/tree/x"},
        ["hf_model_link", "revision"],
    ),
    "link of wrong type": (
        {"base_model_option": None, "base_model": "HF_MODEL", "hf_model_link": 5},
        ["hf_model_link"],
    ),
    "folder as base model": ({"base_model_option": None, "base_model": "../models"}, ["base_model"]),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_start_is_refused_naming_the_field(
    client: Client, own: str, rows: str, tuned: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, own, *words):
        create_job(client, own, json.dumps(body(rows, **changed)))


def test_grpo_needs_the_checkpoint(client: Client, own: str, rows: str, tuned: str) -> None:
    with refused(client, own, "checkpoint", "'tuned'", "1, 2, 3"):
        client.post(f"/v1/projects/{own}/training-jobs/grpo", body(rows, **GRPO))
    made = started(client, own, body(rows, checkpoint=3, parameters={"max_length": 512}, **GRPO), "/grpo")
    assert (made["training_technique"], made["base_fine_tuned_model_checkpoint"]) == ("GRPO", 3)
    assert made["hyper_parameters"].items() >= SHAPE.items()
    best = started(client, own, body(rows, checkpoint="best", parameters={"max_length": 512}, **GRPO), "/grpo")
    assert best["base_fine_tuned_model_checkpoint"] == 2


def test_job_of_another_project_is_unknown_here(client: Client, own: str, tuned: str) -> None:
    other = str(client.post("/v1/projects", {"name": "elsewhere"})["id"])
    dataset = str(upload(client, other, GOOD * 4)["id"])
    for reference in ("tuned", tuned):
        with refused(client, other, "base_model", f"no training job {reference!r}"):
            create_job(client, other, json.dumps(body(dataset, base_model=reference, checkpoint=1)))


def test_labels_must_be_those_of_the_parent(client: Client, own: str) -> None:
    topics = classified(client, own, *TOPICS)
    parent(own, topics, "topics", 1, task_type="classification")
    wanted = {"base_model": "topics", "task_type": "classification"}
    several = classified(client, own, {"food": 1, "sport": 1}, {"food": 0, "sport": 1})
    for dataset, words in {
        classified(client, own, {"food": 1, "news": 0, "sport": 0}, {"food": 0, "news": 1, "sport": 0}): ["'news'"],
        classified(client, own, {"food": 1}, {"food": 0}): ["lacks the label 'sport'"],
        several: ["multilabel", "multiclass"],
    }.items():
        with refused(client, own, "train_dataset_id", *words):
            create_job(client, own, json.dumps(body(dataset, **wanted)))
    again = classified(client, own, *TOPICS, *TOPICS)
    made = started(client, own, body(again, base_model="topics"))
    assert (made["base_fine_tuned_model"], made["task_type"]) == ("topics", "classification")
    with refused(client, own, "task_type", "was trained for classification, not text-generation"):
        client.post(f"/v1/projects/{own}/training-jobs/grpo", body(again, base_model="topics", checkpoint=1, **GRPO))


@pytest.mark.parametrize(
    ("reference", "checkpoint", "expected"),
    [
        ("tuned", None, 2),
        ("tuned", 3, 3),
        ("tuned", 3.0, 3),
        ("tuned", "best", 2),
        ("untested", None, 2),
        ("busy", 1, 1),
    ],
)
def test_job_shows_what_it_started_from(
    client: Client, own: str, rows: str, tuned: str, reference: str, checkpoint: Any, expected: int
) -> None:
    made = started(client, own, body(rows, base_model=reference, checkpoint=checkpoint))
    assert made["base_model_option"] == "fine-tuned"
    assert made["base_model"] == MODEL
    assert made["base_fine_tuned_model"] == reference
    assert made["base_fine_tuned_model_checkpoint"] == expected
    assert made["hyper_parameters"].items() >= SHAPE.items()
    assert made["hyper_parameters"]["learning_rate"] == 5e-4  # the model's own


def test_parent_is_named_by_id_too_and_the_same_shape_may_be_given(
    client: Client, own: str, rows: str, tuned: str
) -> None:
    made = started(client, own, body(rows, base_model=tuned, parameters=SHAPE))
    assert made["base_fine_tuned_model"] == "tuned"


def test_parent_stays_while_a_job_that_starts_from_it_lives_and_then_unless_forced(
    client: Client, own: str, rows: str
) -> None:
    path = f"/v1/projects/{own}/training-jobs"
    first = parent(own, rows, "to-delete", 1)
    child = started(client, own, body(rows, base_model="to-delete"))["id"]
    set_status(child, "Running")
    with refused(client, own, child, "starts from", first):
        client.delete(f"{path}/{first}")
    set_status(child, "Cancelled")
    with refused(client, own, child, "started", "force=true"):
        client.delete(f"{path}/{first}")
    client.delete(f"{path}/{first}?force=true")
    shown = client.get(f"{path}/{child}")
    assert (shown["base_fine_tuned_model"], shown["base_fine_tuned_model_checkpoint"]) == ("to-delete", 1)
    assert in_catalogue(lambda session: session.get_one(TrainingJob, child)).parent_id is None


def test_project_is_deleted_with_parents_and_children(client: Client) -> None:
    project = str(client.post("/v1/projects", {"name": "family"})["id"])
    dataset = str(upload(client, project, GOOD * 4)["id"])
    parent(project, dataset, "tuned", 1)
    started(client, project, body(dataset))
    client.delete(f"/v1/projects/{project}")
    assert project not in {row["id"] for row in client.get("/v1/projects")}


@pytest.mark.parametrize("link", ["owner/name", "https://huggingface.co/owner/name"])
def test_model_outside_the_catalogue_is_named_by_its_repository(client: Client, own: str, rows: str, link: str) -> None:
    made = started(client, own, {"base_model": "HF_MODEL", "hf_model_link": link, "train_dataset_id": rows})
    assert (made["base_model_option"], made["base_model"]) == ("pre-trained", "owner/name")
    assert "base_fine_tuned_model" not in made
