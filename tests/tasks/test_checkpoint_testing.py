import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from emissary.serving.adapter_task import AdapterTask
from emissary.serving.generation import GenerationRequest, Generator
from tasks.checkpoint_report import Report
from tasks.checkpoint_testing import Results, aggregate, answer_rows, last_question, read_results, write_results
from tasks.pooled_testing import Predictions
from tasks.sft_rows import Conversation
from tests.tasks.conftest import Trained
from tests.tasks.sft_run import row

CHAT: Conversation = {
    "kind": "chat",
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris"},
    ],
}


@pytest.fixture(scope="module")
def generator(base_model_dir: Path, trained: Trained) -> Generator:
    generator = Generator(base_model_dir, torch.float32)
    generator.load_adapter("trained", trained.checkpoints[-1].folder)
    return generator


def test_answers_come_in_the_rows_order(generator: Generator) -> None:
    progress: list[float] = []
    rows = [row("Repeat the word: blue", "blue"), CHAT, row("What is 1+1? Be brief." * 3, "2")]
    answers = answer_rows(generator, rows, None, 8, progress.append)
    assert "Paris" in answers[1]
    assert [answer_rows(generator, [single], None, 8, lambda _: None)[0] for single in rows] == answers
    assert len(progress) == 3
    assert progress[-1] == 1.0


def test_an_adapter_answers_differently(generator: Generator) -> None:
    rows = [row("Say it. ", "red"), CHAT]
    assert answer_rows(generator, rows, "trained", 8, lambda _: None) != answer_rows(
        generator, rows, None, 8, lambda _: None
    )


def test_prompt_beyond_the_context_loses_its_beginning(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "context", 40)
    long = row("word " * 60 + "What is the capital of France?", "Paris")
    end = generator.chat_prompt(long["messages"][:-1])[-32:]
    expected = generator.generate([GenerationRequest(end, max_new_tokens=8)])[0].text
    assert answer_rows(generator, [long], None, 8, lambda _: None) == [expected]


def test_results_hold_exact_texts_and_scores(tmp_path: Path) -> None:
    tested = [
        ('=SUM(A1), "quoted"\nnext line', "α", ""),
        ("What is the capital of France?", "Paris", "Paris, of course"),
    ]
    write_results(tmp_path / "new", tested, {"exact": [0.5, None], "length": [1.0, 2.0]})
    records = pq.read_table(tmp_path / "new" / "results.parquet").to_pylist()
    assert records == [
        {"input": '=SUM(A1), "quoted"\nnext line', "expected_output": "α", "output": "", "exact": 0.5, "length": 1.0},
        {
            "input": "What is the capital of France?",
            "expected_output": "Paris",
            "output": "Paris, of course",
            "exact": None,
            "length": 2.0,
        },
    ]
    read = pd.read_csv(tmp_path / "new" / "results.csv", keep_default_na=False)
    assert read.to_dict("records")[0] == {**records[0], "exact": "0.5"}
    assert read.to_dict("records")[1] == {**records[1], "exact": ""}


def test_results_have_the_errors_of_rows_where_there_are_any(tmp_path: Path) -> None:
    tested, scores = [("in", "a", "b"), ("in", "a", "a")], {"exact": [None, 1.0], "length": [1.0, 2.0]}
    errors = {"exact": ["Traceback …\nValueError: ß\n", None], "length": [None, None]}
    write_results(tmp_path, tested, scores, errors=errors)
    first, second = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert json.loads(first["errors"]) == {"exact": "Traceback …\nValueError: ß\n"}
    assert second["errors"] == ""
    assert pd.read_csv(tmp_path / "results.csv", keep_default_na=False)["errors"][0] == first["errors"]
    write_results(tmp_path, tested, {"length": [1.0, 2.0]}, errors={"length": [None, None]})
    assert "errors" not in pq.read_table(tmp_path / "results.parquet").column_names


def test_results_of_a_classification_have_each_labels_probability(tmp_path: Path) -> None:
    task = AdapterTask(task_type="classification", label_kind="multiclass", labels=["b", "a"])
    predictions = Predictions(task, np.array([[1.0, 0.0]]), np.array([[0.75, 0.25]]))
    write_results(tmp_path, [("in", "b", "b")], {}, predictions)
    (record,) = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert json.loads(record["probabilities"]) == {"b": 0.75, "a": 0.25}
    assert pd.read_csv(tmp_path / "results.csv")["probabilities"][0] == record["probabilities"]


def test_what_was_written_is_read_back_also_of_an_earlier_version(tmp_path: Path) -> None:
    write_results(tmp_path, [("in", "a", "b")], {"exact": [0.5]})
    assert read_results(tmp_path) == Results({"exact": 0.5}, None, {})
    Report({"accuracy": 0.5, "spearman": None}, None, {"roc": b"picture"}).write(tmp_path)
    report = {"metrics": {"accuracy": 0.5, "spearman": None}, "class_metrics": None, "plots": ["roc"]}
    assert read_results(tmp_path) == Results({"exact": 0.5}, report, {"roc": b"picture"})


def test_the_last_user_message_is_the_input() -> None:
    assert last_question(CHAT) == "What is the capital of France?"


def test_aggregate_is_the_mean_over_scored_rows() -> None:
    assert aggregate({"exact": [1.0, None, 0.0], "none": [None, None]}) == {"exact": 0.5}
