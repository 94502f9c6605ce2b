"""How the command line shows a dataset's profile."""

import json

from emissary.cli.dataset_profile import flattened
from emissary.data.profiling import Contradictions, DatasetProfile, Distribution, Field, NearDuplicates, Tokens

QUANTILES = dict.fromkeys(("min", "p5", "p25", "median", "p75", "p95", "p99", "max"), 7.0)


def profile(classes: int) -> dict[str, object]:
    spread = Distribution(quantiles=QUANTILES, mean=7.0, histogram=None, outliers=None)
    found = DatasetProfile(
        fields={"prompt": Field(empty=0, constant=False, characters=spread)},
        tokens=Tokens(base_model="small", context=64, rows=9, over_context=2, lengths=spread),
        near_duplicates=NearDuplicates(rows=9, count=1, pairs=[(3, 2)]),
        contradictions=Contradictions(rows=9, count=0, pairs=[]),
    )
    counts = {f"label {number}": number for number in range(1, classes + 1)}
    more = {"rows": 9, "class_counts": counts, "problems": [], "warnings": ["Few rows."], "plots": {"tokens": "http:"}}
    return json.loads(found.model_dump_json()) | more  # type: ignore[no-any-return]


def test_profile_becomes_lines_and_tables_without_nested_values() -> None:
    shown = flattened({"id": "ds-1", "profile": profile(2)})
    assert (shown["id"], shown["rows"]) == ("ds-1", 9)
    assert shown["tokens"] == "of small; 2 of 9 rows are longer than its context, 64"
    assert shown["near_duplicates"] == "1 of 9 rows"
    assert shown["contradictions"] == "0 of 9 rows"
    assert shown["classes"] == [{"class": "label 2", "rows": 2}, {"class": "label 1", "rows": 1}]
    assert [row["of"] for row in shown["values_and_lengths"]] == ["prompt, characters", "tokens"]
    assert shown["warnings"] == [{"warning": "Few rows."}]
    assert "problems" not in shown
    for value in shown.values():
        rows = value if isinstance(value, list) else [{"": value}]
        assert not any(isinstance(cell, dict | list) for row in rows for cell in row.values())


def test_of_many_classes_the_largest_are_shown_and_the_others_counted() -> None:
    classes = flattened({"id": "ds-1", "profile": profile(23)})["classes"]
    assert classes[0] == {"class": "label 23", "rows": 23}
    assert classes[-1] == {"class": "… 3 smaller ones", "rows": 1 + 2 + 3}
    assert len(classes) == 21


def test_dataset_without_a_profile_yet_shows_what_validation_found() -> None:
    report = {"rows": 3, "problems": [{"line": 2, "reason": "no"}], "warnings": [], "class_counts": {}}
    assert flattened({"id": "ds-1", "profile": report}) == {"id": "ds-1", "rows": 3, "problems": report["problems"]}
