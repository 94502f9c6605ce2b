"""What is said of a request whose fields are wrong: the field by its path, and why, in a sentence."""

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from emissary.api.errors import field_sentence
from emissary.schemas.deployments import DeploymentCreate
from emissary.schemas.engines import EngineCreate
from emissary.schemas.grpo_jobs import GrpoJobCreate
from emissary.schemas.pipelines import PipelineCreate, PipelineReplace, PipelineRunCreate
from emissary.schemas.predictions import ClassificationRequest
from emissary.schemas.subscriptions import SubscriptionCreate
from emissary.schemas.testing_functions import TestingFunctionCreate
from emissary.schemas.training_jobs import TrainingJobCreate
from emissary.schemas.webhooks import WebhookCreate

TRAIN = {"base_model": "m", "test_functions": ["f"]}
PIPELINE: dict[str, Any] = {"name": "a", "train": TRAIN}
JOB = {"base_model": "m", "train_dataset_id": "d"}


def said(model: type[BaseModel], body: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    problems = [problem | {"loc": ("body", *problem["loc"])} for problem in raised.value.errors()]
    return field_sentence(RequestValidationError(problems, body=body))


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (PipelineCreate, PIPELINE | {"gate": {"minimun_score": {"f": 0.9}}}, "gate.minimun_score"),
        (PipelineCreate, PIPELINE | {"schedule": {"cron": "0 3 * * *", "tz": "UTC"}}, "schedule.tz"),
        (PipelineCreate, PIPELINE | {"gather": {"dataset": "ds-1"}}, "gather.dataset"),
        (PipelineCreate, PIPELINE | {"train": TRAIN | {"seed": 1}}, "train.seed"),
        (PipelineRunCreate, {"dataset": ["ds-1"]}, "dataset"),
        (SubscriptionCreate, {"name": "a", "events": ["training_job.started"], "event": []}, "event"),
        (WebhookCreate, {"name": "a", "sceme": "github"}, "sceme"),
    ],
)
def test_field_that_there_is_not_is_named(model: type[BaseModel], body: dict[str, Any], field: str) -> None:
    assert said(model, body).startswith(f"{field}: there is no such field")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "input: list should have at least 1 item, not 0."),
        (["a", ""], "input.1: string should have at least 1 character."),
        ([1, 2, 3], "input.0: input should be a valid string."),
        (5, "input: input should be a valid string."),
    ],
)
def test_field_of_several_types_is_told_of_by_the_one_that_was_meant(texts: Any, sentence: str) -> None:
    assert said(ClassificationRequest, {"model": "m", "input": texts}) == sentence


def test_word_in_place_of_a_number_is_told_of_by_the_words_that_there_are() -> None:
    assert said(TrainingJobCreate, JOB | {"checkpoint": "last"}) == "checkpoint: input should be 'best'."


def test_word_in_capitals_stays_one() -> None:
    body = PIPELINE | {"schedule": {"rrule": "FREQ=DAILY;COUNT=3"}}
    assert said(PipelineCreate, body).startswith("schedule.rrule: COUNT has no start")


def test_what_was_answered_may_be_sent_back() -> None:
    answered = PIPELINE | {"id": "pl-1", "created_by": "u", "created_at": 1, "updated_at": 2}
    assert PipelineReplace.model_validate(answered).model_dump() == PipelineCreate.model_validate(PIPELINE).model_dump()


@pytest.mark.parametrize(
    ("model", "misspelt", "meant"),
    [
        (TrainingJobCreate, "paramters", "parameters"),
        (TrainingJobCreate, "test_dataset", "test_dataset_id"),
        (GrpoJobCreate, "rewards", "reward"),
        (DeploymentCreate, "training_job", "training_job_id"),
        (EngineCreate, "basemodel", "base_model"),
        (TestingFunctionCreate, "dependency", "dependencies"),
    ],
)
def test_field_that_is_nearly_a_known_one_is_refused(model: type[BaseModel], misspelt: str, meant: str) -> None:
    known = {"some_other_field": 1} | JOB  # which is left out, where it is none
    assert f"there is no field '{misspelt}'; '{meant}' may be meant." in said(model, known | {misspelt: "x"})


def test_field_that_is_like_no_known_one_is_left_out() -> None:
    TrainingJobCreate.model_validate(JOB | {"some_other_field": 1})
