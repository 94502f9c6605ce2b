import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from emissary.errors import InvalidInput
from emissary.serving.adapter_task import AdapterTask
from emissary.serving.pooled import PooledModel
from tasks.pooled_rows import examples
from tasks.pooled_testing import predict_rows
from tasks.pooled_training import first_bias
from tasks.training_steps import FinishedCheckpoint
from tests.tasks import pooled_run
from tests.tasks.pooled_run import (
    BINARY,
    MULTICLASS,
    NUMBERS,
    PAIRS,
    TASKS,
    encoder_dir,
    peft_outputs,
    plain_encoder,
    run,
)


def trained(kind: str, work_dir: Path, **changed: Any) -> list[FinishedCheckpoint]:
    checkpoints: list[FinishedCheckpoint] = []
    run(kind, work_dir, on_checkpoint=checkpoints.append, **changed)
    return checkpoints


def answers_of(model_dir: Path, checkpoint: FinishedCheckpoint, kind: str, rows: list[Any]) -> list[tuple[str, str]]:
    """(expected, predicted) of each row."""
    model = PooledModel(model_dir, TASKS[kind].task_type)
    model.load_adapter("trained", checkpoint.folder)
    return [row[1:] for row in predict_rows(model, rows, "trained", lambda _: None)[0]]


def test_multiclass_learns_and_peft_loads_it_with_the_same_scores(tmp_path: Path) -> None:
    checkpoints = trained("multiclass", tmp_path)
    assert [checkpoint.number for checkpoint in checkpoints] == [1, 2, 3, 4]
    first, last = checkpoints[0], checkpoints[-1]
    assert last.train_loss < first.train_loss
    assert last.test_loss is not None
    assert first.test_loss is not None
    assert last.test_loss < first.test_loss
    answers = answers_of(encoder_dir(), last, "multiclass", MULTICLASS)
    assert {expected for expected, _ in answers} == {"food", "sport", "weather"}
    assert sum(expected == predicted for expected, predicted in answers) >= 11

    assert_as_peft(encoder_dir(), last)


def assert_as_peft(model_dir: Path, checkpoint: FinishedCheckpoint) -> None:
    model = PooledModel(model_dir, "classification", torch.float32)
    model.load_adapter("trained", checkpoint.folder)
    texts = [row["prompt"] for row in MULTICLASS]
    ours = torch.stack(model.run([model.row(text, "trained") for text in texts]))
    assert torch.allclose(ours, peft_outputs(model_dir, checkpoint.folder, texts, 3), atol=1e-4)


def test_encoder_that_no_pooling_is_known_of_keeps_transformers_head(tmp_path: Path) -> None:
    model_dir = plain_encoder(tmp_path / "model")
    last = trained("multiclass", tmp_path, model_dir=model_dir, test_rows=[])[-1]
    answers = answers_of(model_dir, last, "multiclass", MULTICLASS)
    assert sum(expected == predicted for expected, predicted in answers) >= 11
    assert_as_peft(model_dir, last)
    with pytest.raises(InvalidInput, match=r"its head must be \(3, 384\), and is none"):
        PooledModel(encoder_dir(), "classification").load_adapter("other", last.folder)
    with pytest.raises(InvalidInput, match="does not fit the base model"):
        trained("multiclass", tmp_path / "next", adapter_dir=last.folder)


def test_binary_learns_positive_and_negative(tmp_path: Path) -> None:
    answers = answers_of(encoder_dir(), trained("binary", tmp_path)[-1], "binary", BINARY)
    assert {expected for expected, _ in answers} == {"positive", "negative"}
    assert sum(expected == predicted for expected, predicted in answers) >= 11


def test_regression_learns_numbers_in_their_own_units(tmp_path: Path) -> None:
    parameters = {"num_train_epochs": 12, "save_steps": 100}
    checkpoints = trained("numbers", tmp_path, test_rows=[], parameters=parameters)
    assert checkpoints[-1].test_loss is None
    answers = answers_of(encoder_dir(), checkpoints[-1], "numbers", NUMBERS)
    assert answers[0][0] == "10"
    errors = [abs(float(expected) - float(predicted)) for expected, predicted in answers]
    assert sum(errors) / len(errors) < 7.5  # predicting the mean misses by 15


def test_embedding_learns_similarities(tmp_path: Path) -> None:
    answers = answers_of(encoder_dir(), trained("pairs", tmp_path)[-1], "pairs", PAIRS)
    assert {expected for expected, _ in answers} == {"1", "-0.5"}
    assert all(abs(float(expected) - float(predicted)) < 0.5 for expected, predicted in answers)


@pytest.mark.parametrize(
    ("kind", "rows"), [("multiclass", MULTICLASS), pytest.param("binary", BINARY, marks=pytest.mark.acceptance)]
)
def test_chat_model_learns_classes_too(tmp_path: Path, model_dir: Path, kind: str, rows: list[Any]) -> None:
    parameters = {"num_train_epochs": 5, "learning_rate": 1e-3, "save_steps": 100}
    checkpoints = trained(kind, tmp_path, model_dir=model_dir, test_rows=[], parameters=parameters)
    answers = answers_of(model_dir, checkpoints[-1], kind, rows)
    assert sum(expected == predicted for expected, predicted in answers) >= 11


def test_chat_model_learns_numbers_too(tmp_path: Path, model_dir: Path) -> None:
    parameters = {"num_train_epochs": 12, "learning_rate": 1e-3, "save_steps": 100}
    checkpoints = trained("numbers", tmp_path, model_dir=model_dir, test_rows=[], parameters=parameters)
    answers = answers_of(model_dir, checkpoints[-1], "numbers", NUMBERS)
    errors = [abs(float(expected) - float(predicted)) for expected, predicted in answers]
    assert sum(errors) / len(errors) < 7.5


def test_chat_model_learns_similarities_too(tmp_path: Path, model_dir: Path) -> None:
    parameters = {"num_train_epochs": 8, "learning_rate": 1e-3, "save_steps": 100}
    checkpoints = trained("pairs", tmp_path, model_dir=model_dir, test_rows=[], parameters=parameters)
    answers = answers_of(model_dir, checkpoints[-1], "pairs", PAIRS)
    similar, other = ([float(found) for said, found in answers if said == value] for value in ("1", "-0.5"))
    assert min(similar) > max(other) + 0.1


def test_killed_training_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    trained("multiclass", tmp_path / "whole")
    killed = subprocess.run([sys.executable, "-m", pooled_run.__name__, str(tmp_path / "killed"), "7"], check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = trained("multiclass", tmp_path / "killed")
    assert [checkpoint.number for checkpoint in resumed] == [3, 4]
    for name in ("adapter_model.safetensors", "adapter_config.json", "task.json"):
        whole, again = (tmp_path / life / "checkpoints" / "4" / name for life in ("whole", "killed"))
        assert whole.read_bytes() == again.read_bytes()


def test_long_texts_are_cut_and_counted() -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir())
    rows = [{"prompt": "word " * 100, "target": 1.0}, {"prompt": "short", "target": 2.0}]
    made, cut = examples(rows, TASKS["numbers"], tokenizer, 16)
    assert cut == 1
    assert [row.length for row in made] == [16, 3]


def test_rows_without_a_place_in_the_task_are_refused() -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir())
    with pytest.raises(InvalidInput, match="Row 1 has the label 'politics', which the training dataset does not have"):
        examples([{"prompt": "a", "labels": {"politics": 1}}], TASKS["multiclass"], tokenizer, 16)
    with pytest.raises(InvalidInput, match="Row 1 has 2 labels that are 1"):
        examples([{"prompt": "a", "labels": {"food": 1, "sport": 1}}], TASKS["multiclass"], tokenizer, 16)


def test_multilabel_head_starts_at_the_labels_frequencies() -> None:
    bias = first_bias([[1.0, 0.0]] * 30 + [[0.0, 0.0]] * 69)
    assert bias.sigmoid().tolist() == pytest.approx([0.305, 0.005])


@pytest.mark.parametrize(
    ("kind", "marked", "text"),
    [
        ("binary", {"spam": 1}, "positive"),
        ("binary", {"spam": 0}, "negative"),
        ("multiclass", {"a": 0, "b": 1}, "b"),
        ("multilabel", {"b, c": 1, "a": 1, "d": 0}, '["a", "b, c"]'),
        ("multilabel", {"a": 0}, "[]"),
    ],
)
def test_labels_have_one_text_form(kind: Any, marked: dict[str, int], text: str) -> None:
    task = AdapterTask(task_type="classification", label_kind=kind, labels=sorted(marked))
    assert task.label_text(marked) == text
    logits = torch.tensor([4.0 if marked[label] else -4.0 for label in task.labels])
    assert task.predicted_labels(logits) == text
