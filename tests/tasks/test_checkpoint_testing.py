import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from emissary.schemas.training_jobs import FunctionSummary, WorstRow
from emissary.serving.adapter_task import AdapterTask
from tasks.checkpoint_report import Report
from tasks.checkpoint_testing import Results, aggregate, read_results, read_scores, write_results, write_summary
from tasks.pooled_testing import Predictions


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
    worst = WorstRow(row=1, score=0.5, input="in", expected_output="a", output="b")
    summary = FunctionSummary(mean=0.5, low=None, high=None, rows=1, base=None, difference=None, worst=[worst])
    write_summary(tmp_path, {"exact": summary})
    report["test_summary"] = {"exact": summary.model_dump()}
    assert read_results(tmp_path) == Results({"exact": 0.5}, report, {"roc": b"picture"})


def test_scores_are_read_back_row_by_row(tmp_path: Path) -> None:
    write_results(tmp_path, [("in", "a", "b"), ("in", "a", "a")], {"exact": [None, 1.0], "length": [1.0, 2.0]})
    assert read_scores(tmp_path, ["exact", "of another job"]) == {"exact": [None, 1.0]}


def test_aggregate_is_the_mean_over_scored_rows() -> None:
    assert aggregate({"exact": [1.0, None, 0.0], "none": [None, None]}) == {"exact": 0.5}
