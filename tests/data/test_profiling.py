import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.data import profiling
from emissary.data.inputs import leaked
from emissary.data.normalise import normalise, read_normalised
from emissary.data.profile_warnings import warnings_of
from emissary.data.profiling import DatasetProfile, distribution, imbalance, leakage, profile
from emissary.data.records import SCHEMA
from emissary.data.rows import MOST_TARGET

REPORT = {"duplicates": 0, "warnings": [], "class_counts": {}}


def normalised(folder: Path, rows: list[dict], name: str = "rows") -> Path:
    upload = folder / f"{name}.jsonl"
    upload.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    normalise(upload, upload.name, folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def prompts(texts: list[str], completions: list | None = None) -> list[dict]:
    given_completions = completions or [str(number) for number in range(len(texts))]
    return [{"prompt": text, "completion": each} for text, each in zip(texts, given_completions, strict=True)]


def test_fields_and_their_lengths(tmp_path):
    found, _ = profile(normalised(tmp_path, prompts(["a b", "ä", "abcdef"], ["x"] * 3)))
    assert set(found.fields) == {"prompt", "completion"}
    assert found.fields["prompt"].characters.quantiles["median"] == 3
    assert found.fields["prompt"].characters.quantiles["max"] == 6
    assert (found.fields["prompt"].constant, found.fields["completion"].constant) == (False, True)
    assert any("'completion' is the same in every row" in said for said in warnings_of(found, REPORT))


def test_conversations_of_any_length_are_one_field(tmp_path):
    turns = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cde"}]
    found, _ = profile(normalised(tmp_path, [{"messages": turns}, {"messages": turns * 2}, *prompts(["x"])]))
    assert found.fields["messages"].characters.quantiles["min"] == 2 + 1 + 3
    assert found.fields["messages"].characters.quantiles["max"] == 2 * 5 + 3
    assert found.fields["prompt"].empty == found.fields["messages"].empty == 0


def test_same_answer_of_all_conversations_is_said(tmp_path):
    def conversation(number: int, answer: str) -> dict:
        turns = [{"role": "user", "content": f"{number}"}, {"role": "assistant", "content": "yes"}] * (1 + number % 2)
        return {"messages": [*turns[:-1], {"role": "assistant", "content": answer}]}

    same, _ = profile(normalised(tmp_path, [conversation(number, "no") for number in range(5)]))
    assert any("last of 'messages', is the same in every row" in said for said in warnings_of(same, REPORT))
    rows = [conversation(number, "no") for number in range(5)]
    other, _ = profile(normalised(tmp_path, [*rows, conversation(5, "maybe")], "other"))
    assert not any("the same in every row" in said for said in warnings_of(other, REPORT))
    one, _ = profile(normalised(tmp_path, rows[:1], "one"))
    assert not any("the same in every row" in said for said in warnings_of(one, REPORT))


def test_class_without_rows_is_said_and_no_imbalance_is_made_up(tmp_path):
    found, _ = profile(normalised(tmp_path, prompts(["a"])))
    counts = {"cat": 30, "dog": 10, "bird": 0}
    assert imbalance({"cat": 30, "dog": 10}) == 3
    assert imbalance(counts) is None
    said = warnings_of(found, REPORT | {"class_counts": counts})
    assert any(each.startswith("1 of 3 classes, such as 'bird', has no row at all") for each in said)


def test_one_outlier_is_said_in_the_singular(tmp_path):
    targets = [*(float(number % 10) for number in range(100)), 1e6]
    found, _ = profile(normalised(tmp_path, prompts([f"text {number:03}" for number in range(101)], targets)))
    assert any(
        said.startswith("1 target is far from the others, outside ") and said.endswith(", that of row 101.")
        for said in warnings_of(found, REPORT)
    )


def test_targets_have_quantiles_a_histogram_and_outliers_by_row(tmp_path):
    targets = [*(float(number % 10) for number in range(100)), 1e6, -1e6]
    found, _ = profile(normalised(tmp_path, prompts([f"text {number}" for number in range(102)], targets)))
    assert found.target.quantiles["median"] == 4.5
    assert sum(found.target.histogram["counts"]) == 102
    assert (found.target.outliers.count, found.target.outliers.rows) == (2, [101, 102])
    assert any("2 targets are far from the others" in said for said in warnings_of(found, REPORT))


def test_similarities_of_pairs_are_targets(tmp_path):
    rows = [
        {"itemA": {"text": "a"}, "itemB": {"text": f"b{number}"}, "similarity": number / 10} for number in range(-9, 10)
    ]
    found, _ = profile(normalised(tmp_path, rows))
    assert set(found.fields) == {"text_a", "text_b", "similarity"}
    assert found.fields["text_a"].constant
    assert found.target.quantiles["max"] == 0.9


@st.composite
def numbers(draw: st.DrawFn) -> list[float]:
    """Any that a target may be, or a few that are next to each other."""
    size = draw(st.sampled_from([1.0, 1e9, MOST_TARGET]))
    values = draw(st.lists(st.floats(-size, size), min_size=1, max_size=60))
    if draw(st.booleans()):
        steps = draw(st.lists(st.integers(0, 40), min_size=1, max_size=60))
        values = [values[0] + step * math.ulp(values[0]) for step in steps]
    return values


@given(numbers())
def test_distribution_of_any_numbers(values):
    found = distribution(np.array(values))
    ordered = list(found.quantiles.values())
    assert all(low <= high or low == pytest.approx(high) for low, high in pairwise(ordered))
    assert (ordered[0], ordered[-1]) == (min(values), max(values))
    assert sum(found.histogram["counts"]) == len(values)
    assert all(low < high for low, high in pairwise(found.histogram["edges"]))
    if found.outliers:
        outside = [value for value in values if not found.outliers.low <= value <= found.outliers.high]
        assert found.outliers.count == len(outside)
        assert [values[row - 1] for row in found.outliers.rows] == outside[:5]


def test_near_duplicates_are_told_apart_from_copies(tmp_path):
    texts = [" ".join(f"w{word}" for word in words) for words in np.random.default_rng(1).integers(0, 10**6, (50, 40))]
    near = texts[7].rsplit(" ", 1)[0] + " other"
    found, _ = profile(normalised(tmp_path, prompts([*texts, texts[3], near])))
    assert (found.near_duplicates.count, found.near_duplicates.pairs) == (1, [(52, 8)])
    assert any("row 52 and row 8" in said for said in warnings_of(found, REPORT))


@pytest.mark.parametrize(
    ("answers", "pairs"),
    [
        ([{"x": 1, "y": 0}, {"x": 0, "y": 1}, {"y": 0, "x": 1}, {"x": 0, "y": 1}], [(4, 1)]),
        ([1, 2, 1.0, 3], [(4, 1)]),
        (["one", "two", "one", "three"], []),  # a text may be answered in many ways
    ],
)
def test_same_input_with_another_label_or_number_is_a_contradiction(tmp_path, answers, pairs):
    found, _ = profile(normalised(tmp_path, prompts(["a  b", "c", "a b", "a b"], answers)))
    assert (found.contradictions.rows, found.contradictions.pairs) == (4, pairs)
    said = [each for each in warnings_of(found, REPORT) if "another answer" in each]
    assert len(said) == len(pairs)
    assert all("1 of 4 rows that were compared has" in each and "row 4 and row 1" in each for each in said)


def test_of_very_many_rows_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "_NEAR_ROWS", 100)
    monkeypatch.setattr(profiling, "_TOKEN_ROWS", 30)
    path = normalised(tmp_path, prompts([f"text {number}" for number in range(9000)]))
    seen: list[str] = []

    def count(rows: list[dict]) -> list[int]:
        seen.extend(row["prompt"] for row in rows)
        return [1] * len(rows)

    found, tokens = profile(path, count)
    assert found.near_duplicates.rows == 100
    assert (len(tokens), seen[0], seen[-1]) == (30, "text 0", "text 8999")
    assert found.fields["prompt"].characters.quantiles["max"] == len("text 8999")


TEXT = st.sampled_from(["red", "red ", "green", "blue", "black white"])


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXT, min_size=1, max_size=20), st.lists(TEXT, min_size=1, max_size=20))
def test_leakage_is_found_in_files_as_in_rows(training, test):
    with TemporaryDirectory() as folder:
        here, there = (
            normalised(Path(folder), prompts(texts), name) for name, texts in (("here", training), ("there", test))
        )
        found = leakage(here, there, "ds-test")
        expected = leaked(list(read_normalised(here)), list(read_normalised(there)))
    known = {text.strip() for text in training}
    assert expected == [index for index, text in enumerate(test) if text.strip() in known]
    assert (found.rows, found.test_rows) == (len(expected), [index + 1 for index in expected[:5]])


def test_conversation_that_asks_what_a_prompt_asks_is_leakage(tmp_path):
    turns = [{"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red"}]
    here = normalised(tmp_path, [{"messages": turns}], "here")
    found = leakage(here, normalised(tmp_path, prompts(["Say  red.", "Say blue."]), "there"), "ds-2")
    assert (found.rows, found.test_rows) == (1, [1])


def test_profile_survives_being_written_and_read(tmp_path):
    found, _ = profile(normalised(tmp_path, prompts(["one"], [1.5])))
    assert DatasetProfile.model_validate_json(found.model_dump_json()) == found


@pytest.mark.acceptance
def test_memory_is_bounded_for_gigabytes(tmp_path):
    words = " ".join(f"w{number}" for number in range(180))
    with pq.ParquetWriter(tmp_path / "rows.parquet", SCHEMA) as writer:
        for start in range(0, 600_000, 4096):
            rows = [{"kind": "prompt", "prompt": f"{start + row} {words}", "completion": words} for row in range(4096)]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    code = (
        "import re, sys; from pathlib import Path; from emissary.data.profiling import profile, leakage; "
        "path = Path(sys.argv[1]); profile(path); leakage(path, path, ''); "
        # Not getrusage: a new program inherits the peak of the process that started it.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows.parquet")]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 1024
